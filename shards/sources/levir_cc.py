"""LEVIR-CC (Liu et al. 2022): pairs of satellite photos, half of them without a change that matters.

LevirCCcaptions.json is of the form of Karpathy's splits: {"images": [{"filename", "filepath", "split", "changeflag",
"sentences": [{"raw", "tokens"}]}]}; photos are images/FILEPATH/A/FILENAME (before) and B (after), where FILEPATH is the
split. changeflag is 1 or 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shards.errors import DataError
from shards.format.record import Split
from shards.sources.layouts.layout import Losses, entry_of, name_of, read_json, sentences_of, text_of
from shards.sources.layouts.pair_folder import Pair, PairFolder
from shards.sources.layouts.splits import SPLIT_NAMES

ANNOTATIONS = "LevirCCcaptions.json"
SIDES = ("A", "B")  # before and after


class LevirCcSource(PairFolder):
    """Records and images of a LEVIR-CC folder."""

    name = "levir_cc"
    layout = f"a LEVIR-CC folder ({ANNOTATIONS} and images/)"
    needed = (ANNOTATIONS,)

    def annotations(self) -> list[str]:
        """The one annotation file."""
        return [ANNOTATIONS]

    def pairs(self, losses: Losses) -> Iterator[Pair]:
        """The pairs in the order of the file."""
        contents = entry_of(read_json(self.root, ANNOTATIONS), ("images",), str(self.root / ANNOTATIONS))
        if not isinstance(contents["images"], list):
            raise DataError(f"{self.root / ANNOTATIONS}: 'images' is not a list: fetch the file again")
        seen: dict[tuple[str, str], int] = {}
        for number, value in enumerate(contents["images"]):
            where = f"{self.root / ANNOTATIONS}: entry {number} of 'images'"
            entry = entry_of(value, ("filename", "sentences"), where)
            split, folder = _place(entry, where)
            name = name_of(entry["filename"], f"{where}: filename")
            if (split, name) in seen:
                raise DataError(f"{where}: {name!r} is entry {seen[split, name]} of {split} too: remove one of them")
            seen[split, name] = number
            before, after = (
                (f"{folder}/{side}/{name}", *self.photos.locate(name, (f"images/{folder}/{side}", f"{folder}/{side}")))
                for side in SIDES
            )
            captions = _captions(entry["sentences"], f"{where}: sentences")
            yield Pair(split, name, before, after, captions, _changed(entry.get("changeflag"), where))


def _place(entry: dict, where: str) -> tuple[Split, str]:
    """(split, folder of the photos): each stands for the other where one of the two fields is not there."""
    fields = [entry[field] for field in ("split", "filepath") if entry.get(field) is not None]
    if not fields:
        raise DataError(f"{where} has neither 'split' nor 'filepath': fetch the file again")
    split = text_of(fields[0], f"{where}: split")
    if split.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split is {split!r}, not train, val or test: correct the entry")
    return SPLIT_NAMES[split.lower()], name_of(fields[-1], f"{where}: filepath")


def _captions(value: Any, where: str) -> tuple[str, ...]:
    """The sentences as they were written, or their tokens where that is all there is."""
    if not isinstance(value, list):
        return sentences_of(value, where)  # says what is wrong
    texts = []
    for number, sentence in enumerate(value):
        if isinstance(sentence, dict) and "raw" not in sentence and isinstance(sentence.get("tokens"), list):
            texts.append(" ".join(sentences_of(sentence["tokens"], f"{where}, number {number + 1}: tokens")))
        else:
            texts.append(entry_of(sentence, ("raw",), f"{where}, number {number + 1},")["raw"])
    return sentences_of(texts, where)


def _changed(flag: Any, where: str) -> bool | None:
    if flag is None:
        return None
    if flag not in (0, 1) or isinstance(flag, float):
        raise DataError(f"{where}: changeflag is {flag!r}, not 0 or 1: correct the entry")
    return bool(flag)
