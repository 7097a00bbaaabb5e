"""Birds-to-Words (Forbes et al. 2019): pairs of iNaturalist photos of birds, and paragraphs that compare them.

One file of 11 tab-separated columns, birds-to-words-v1.0.tsv or any other *.tsv that is alone in the folder, with or
without a line of column names (with one, in any order). A row is a paragraph; up to five rows describe a pair. Photos
come from elsewhere: ID.jpg (or .png) in images/, photos/ or beside the file, where ID is the number in
.../photos/ID/... of the photo's address. Many have been taken down since, so pairs that lack one are listed.
Paragraphs are kept as they were written: "Animal 1" may be "animal1" elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.sources.layouts.layout import Losses, read_text
from shards.sources.layouts.pair_folder import Pair, PairFolder
from shards.sources.layouts.splits import SPLIT_NAMES

COLUMNS = (
    *("img1ObservationURL", "img1ImgURL", "img1Species", "img1Selection"),
    *("img2ObservationURL", "img2ImgURL", "img2Species", "img2Selection"),
    *("split", "annN", "description"),
)
NEEDED = ("img1ImgURL", "img2ImgURL", "split", "description")
PHOTO_FOLDERS = ("images", "photos", ".")
_PHOTO_ID = re.compile(r"/photos/([0-9]{1,20})(?![0-9])")


class BirdsToWordsSource(PairFolder):
    """Records and images of a folder with the Birds-to-Words file and photos."""

    name = "birds_to_words"
    layout = "a folder with birds-to-words-v1.0.tsv and images/ID.jpg"

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        files = sorted(path.name for path in self.root.iterdir() if path.name.lower().endswith(".tsv"))
        files = [name for name in files if name.lower().startswith("birds-to-words")] or files
        if len(files) != 1:
            raise DataError(
                f"{self.root} has {', '.join(files) or 'no *.tsv'}: --root must be {self.layout}, and no second *.tsv"
            )
        self._file = files[0]

    def annotations(self) -> list[str]:
        """The one annotation file."""
        return [self._file]

    def pairs(self, losses: Losses) -> Iterator[Pair]:
        """The pairs in the order of their first rows; a row that cannot be read is noted with its line number."""
        texts: dict[tuple[str, str, str], list[str]] = {}
        columns: tuple[str, ...] = COLUMNS
        for number, line in enumerate(read_text(self.root, self._file).split("\n"), start=1):
            # A paragraph, which comes last, may have tabs of its own.
            cells = tuple(cell.strip() for cell in line.split("\t", len(columns) - 1))
            if number == 1 and set(NEEDED) <= set(cells):
                columns = cells
                continue
            if not any(cells):
                continue
            row = _row(dict(zip(columns, cells, strict=False)))
            if isinstance(row, str):
                losses.add(f"{self._file} line {number}", row)
                continue
            split, first, second, text = row
            texts.setdefault((split, first, second), []).append(text)
        for (split, first, second), captions in texts.items():
            before, after = ((photo, *self.photos.locate(photo, PHOTO_FOLDERS)) for photo in (first, second))
            yield Pair(split, f"{first}_{second}", before, after, tuple(text for text in captions if text))


def _row(fields: dict[str, str]) -> tuple[str, str, str, str] | str:
    """(split, photo id of image 1, of image 2, paragraph) of a row, or why it cannot be read."""
    if not set(NEEDED) <= set(fields):
        return f"a row of fewer than {len(COLUMNS)} columns"
    first, second = (_PHOTO_ID.search(fields[column]) for column in ("img1ImgURL", "img2ImgURL"))
    if first is None or second is None:
        return "a row without the address of a photo (.../photos/ID/...)"
    split = SPLIT_NAMES.get(fields["split"].lower())
    if split is None:
        return "a row whose split is not train, val or test"
    return split, first[1], second[1], " ".join(_unquoted(fields["description"]).split())


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that spreadsheets put around one that has such marks inside."""
    inner = cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner else cell
