"""Spot-the-Diff (Jhamtani and Berg-Kirkpatrick 2018): pairs of frames of surveillance videos.

train.json, val.json and test.json, in the folder or in its annotations/, each a list of {"img_id", "sentences"}; photos
ID.png and ID_2.png in images/, resized_images/ or beside. An entry is what one person wrote about a pair, a sentence a
difference; 6 % of the pairs have two or three entries.

Two protocols are in use:
- single: each sentence is a reference of its own, those of all entries of a pair together; the model says one
  difference. The scoring file of the data set's authors (code/predictions/ddla_rerun_gtfile.json of
  harsh19/spot-the-diff) and CLIP4IDC (Guo et al. 2022, preprocess/reformat_dataset.py) have it so.
- multi: the sentences of an entry, joined by ". ", are one reference, a paragraph; the model says all differences.
  The label file of CARD ("multi-change captioning", Tu et al. 2024) has it so, but joins the entries of a pair too and
  ends the text after 60 words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.sources.layouts.layout import SPLITS, Losses, entry_of, name_of, read_json, sentences_of
from shards.sources.layouts.pair_folder import Pair, PairFolder

PROTOCOLS = ("single", "multi")
PHOTO_FOLDERS = ("images", "resized_images", ".")
ANNOTATION_FOLDERS = (".", "annotations")


class SpotTheDiffSource(PairFolder):
    """Records and images of a Spot-the-Diff folder, by one of the two PROTOCOLS."""

    name = "spot_the_diff"
    layout = "a Spot-the-Diff folder (train.json, val.json, test.json and images/)"

    def __init__(self, root: str | Path, protocol: str = "single") -> None:
        super().__init__(root)
        if protocol not in PROTOCOLS:
            raise DataError(f"--protocol is {protocol!r}: it must be one of {', '.join(PROTOCOLS)}")
        self.protocol = protocol
        self._files = self.split_files({split: (f"{split}.json",) for split in SPLITS}, ANNOTATION_FOLDERS)

    def describe(self) -> dict:
        """A digest of the annotation files and the protocol."""
        return super().describe() | {"protocol": self.protocol}

    def annotations(self) -> list[str]:
        """The annotation files of the splits that are there."""
        return list(self._files.values())

    def pairs(self, losses: Losses) -> Iterator[Pair]:
        """The pairs of each split, in the order in which they first come."""
        for split, file in self._files.items():
            entries: dict[str, list[tuple[str, ...]]] = {}
            for number, value in enumerate(read_json(self.root, file, list)):
                where = f"{self.root / file}: entry {number}"
                entry = entry_of(value, ("img_id", "sentences"), where)
                name = name_of(entry["img_id"], f"{where}: img_id")
                entries.setdefault(name, []).append(sentences_of(entry["sentences"], f"{where}: sentences"))
            for name, texts in entries.items():
                if self.protocol == "single":
                    captions = tuple(sentence for sentences in texts for sentence in sentences)
                else:
                    captions = tuple(". ".join(sentences) for sentences in texts if sentences)
                before, after = ((stem, *self.photos.locate(stem, PHOTO_FOLDERS)) for stem in (name, f"{name}_2"))
                yield Pair(split, name, before, after, captions)
