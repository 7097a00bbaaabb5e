"""Image-Editing-Request (Tan et al. 2019): photos before and after an edit that somebody asked for.

train.json, valid.json and test.json, each a list of {"img0", "img1", "sents", "uid"}; photos by their names in images/,
or beside the files. A request is a sample, under its uid, even where another has the same two photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.sources.layouts.layout import Losses, entry_of, name_of, read_json, sentences_of
from shards.sources.layouts.pair_folder import Pair, PairFolder

FILES = {"train": ("train.json",), "val": ("valid.json", "val.json"), "test": ("test.json",)}
PHOTO_FOLDERS = ("images", ".")


class ImageEditingRequestSource(PairFolder):
    """Records and images of an Image-Editing-Request folder."""

    name = "image_editing_request"
    layout = "an Image-Editing-Request folder (train.json, valid.json, test.json and images/)"

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._files = self.split_files(FILES, (".",))

    def annotations(self) -> list[str]:
        """The annotation files of the splits that are there."""
        return list(self._files.values())

    def pairs(self, losses: Losses) -> Iterator[Pair]:
        """The requests of each split, in the order of its file."""
        for split, file in self._files.items():
            seen: dict[str, int] = {}
            for number, value in enumerate(read_json(self.root, file, list)):
                where = f"{self.root / file}: entry {number}"
                entry = entry_of(value, ("img0", "img1", "sents", "uid"), where)
                uid = name_of(entry["uid"], f"{where}: uid")
                if uid in seen:
                    raise DataError(f"{where}: uid {uid!r} is that of entry {seen[uid]} too: correct one of them")
                seen[uid] = number
                names = (name_of(entry[field], f"{where}: {field}") for field in ("img0", "img1"))
                before, after = ((name, *self.photos.locate(name, PHOTO_FOLDERS)) for name in names)
                yield Pair(split, uid, before, after, sentences_of(entry["sents"], f"{where}: sents"))
