"""Anybody's own pairs: photos in a folder and a table (JSON lines or CSV) with before, after and captions.

Photos of the same name in before/ and after/ need the column name alone. One row is a pair with its captions, or one
caption of a pair: rows of the same two photos are put together. The columns changed, change_type and split may be left
out. Without a split, 80 % of the pairs become train, 10 % val and 10 % test, in such a way that no photo is in two
splits.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

from shards.errors import DataError
from shards.format.record import Record, Split
from shards.format.strict_json import parse_json
from shards.sources.layouts.layout import (
    ImageFiles,
    Losses,
    Units,
    digest,
    image_fault,
    inside,
    key_of,
    sentences_of,
)
from shards.sources.layouts.names import NO_PHOTO, Names
from shards.sources.layouts.splits import SPLIT_NAMES, split_groups
from shards.sources.layouts.tables import Row, read_rows

COLUMNS = ("before", "after", "name", "captions", "caption", "changed", "change_type", "split")
ENDINGS = (".jsonl", ".csv")
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")  # of spreadsheets, which are not read
CHANGED = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),  # a column of 1 and empty fields is often saved as 1.0
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}
OUTSIDE = "a photo outside the folder"
UNCHANGED = "none"  # the change type of a pair without a change
CSV_EXAMPLE = 'before,after,captions / before/1.jpg,after/1.jpg,"the car has gone|there is no car any more"'
JSON_EXAMPLE = '{"before": "before/1.jpg", "after": "after/1.jpg", "captions": ["the car has gone"]}'


@dataclass
class _Pair:
    """What the rows say of two photos, by their names inside the root."""

    before: str
    after: str
    captions: tuple[str, ...]
    labels: dict[str, Any]  # changed, change_type, split: as far as they are said
    place: str


class _Wrong(Exception):
    """Why a row cannot be used: a reason that is counted, and what the row has there."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = _printable(detail)


class PairsSource(ImageFiles):
    """Records and images of a folder with a table of pairs; `table` is its name inside the folder."""

    name = "pairs"
    layout = "a folder with photos and a table of pairs"

    def __init__(self, root: str | Path, table: str | None = None) -> None:
        super().__init__(root)
        self.table = self._find_table() if table is None else table
        if not inside(self.root, self.table).is_file():
            raise DataError(f"{self.root / self.table} is missing: --table is the name of a file inside --root")

    def describe(self) -> dict:
        """What the records depend on, for a manifest: a digest of the table."""
        return {"table_sha256": digest(self.root, [self.table])}

    def records(self, workers: int = 1) -> list[Record]:
        """The pairs in the order of their first rows. `workers` makes no difference."""
        losses, self._names = Losses(), Names(self.root)
        rows = read_rows(self.root, self.table, COLUMNS)
        columns = sorted({column for row in rows for column in row.fields if column})
        locate = cache(self._locate)  # a photo may be in many rows
        pairs: dict[tuple[str, str], _Pair] = {}
        for row in rows:
            try:
                _put_together(pairs, _read(row, locate))
            except _Wrong as wrong:
                losses.add(f"{self.table} {row.place}", wrong.reason, wrong.detail)
        if not pairs:
            first = f"; {losses.lost[0]}; its columns are {_listed(columns)}" if losses.lost else ""
            example = CSV_EXAMPLE if self.table.lower().endswith(".csv") else JSON_EXAMPLE
            raise DataError(f"{self.root / self.table} has no row that can be used{first}. An example: {example}")
        unused = [column for column in columns if column not in COLUMNS]
        if unused:  # one of them may be misspelt
            print(f"{self.root / self.table}: columns that are not used: {_listed(unused)}", file=sys.stderr)
        self._names.tell()
        found = _records(list(pairs.values()), losses, self.table)
        self.leave_out(losses)
        return found

    def _find_table(self) -> str:
        found = [name for name in sorted(os.listdir(self.root)) if name.lower().endswith(ENDINGS) and name[0] != "."]
        if len(found) != 1:
            there = f"has {', '.join(found[:5])}" if found else "has no .jsonl or .csv file"
            if sheets := [name for name in sorted(os.listdir(self.root)) if name.lower().endswith(SHEETS)]:
                there += f" (save {sheets[0]} as CSV)"
            raise DataError(f"{self.root} {there}: name the table of pairs with --table FILE")
        return found[0]

    def _locate(self, name: str) -> tuple[str, str | None]:
        """The path of a photo inside the root, links followed, so that a photo has one name; and its fault, if any."""
        tops = {os.path.abspath(self.root), os.path.realpath(self.root)}
        if top := next((top for top in tops if name.startswith(f"{top}/")), None):
            name = name.removeprefix(f"{top}/")
        if posixpath.isabs(name) or PureWindowsPath(name).drive:
            return name, OUTSIDE
        try:
            name = self._names.spelt(name)
            path = os.path.relpath(os.path.realpath(inside(self.root, name)), os.path.realpath(self.root))
            if path.startswith(".."):  # in a folder that is linked into the root
                path = posixpath.normpath(name)
            path.encode()  # a link may lead to a name that no manifest can hold
        except (DataError, UnicodeEncodeError):
            return name, OUTSIDE
        return path, image_fault(self.root, path if os.path.exists(self.root / name) else name, self._names)


def _read(row: Row, locate: Callable[[str], tuple[str, str | None]]) -> _Pair:
    """What one row says; raises _Wrong."""
    if row.fault is not None:
        raise _Wrong("a row that cannot be read", row.fault)
    before, after = (_photo(row.fields, column, locate) for column in ("before", "after"))
    captions = _captions(row.fields)
    if not captions:
        raise _Wrong("no captions")
    return _Pair(before, after, captions, _labels(row.fields), row.place)


def _photo(fields: dict[str, Any], column: str, locate: Callable[[str], tuple[str, str | None]]) -> str:
    """The path inside the root of the photo in this column, or of this name in the folder of the column's name."""
    value = fields.get(column)
    if (value is None or not str(value).strip()) and str(fields.get("name") or "").strip():
        value = f"{column}/{str(fields['name']).strip()}"
    if value is None or not str(value).strip():
        raise _Wrong(f"no {column}")
    name = posixpath.normpath(str(value).strip().replace("\\", "/"))
    path, fault = locate(name)
    if fault is not None:
        beside = f"{column}/{name}"
        raise _Wrong(fault, f"{name}; {beside} is there" if fault == NO_PHOTO and locate(beside)[1] is None else name)
    return path


def _captions(fields: dict[str, Any]) -> tuple[str, ...]:
    """The sentences of a row: `captions` is a list, a JSON list as text, or text divided by |; `caption` is one."""
    several, one = fields.get("captions"), fields.get("caption")
    if isinstance(several, str):
        if several.lstrip().startswith("["):
            try:
                several = parse_json(several.encode())
            except DataError:
                raise _Wrong("captions that are no JSON list", several) from None
        else:
            several = several.split("|")
    try:
        found = sentences_of(several or [], "captions") + sentences_of([one or ""], "caption")
    except DataError:
        raise _Wrong("captions that are not text", f"{several!r} {one!r}") from None
    return tuple(dict.fromkeys(found))


def _labels(fields: dict[str, Any]) -> dict[str, Any]:
    """changed, change_type and split, where a row says them and they can be true together."""
    labels: dict[str, Any] = {}
    texts = {column: _plain(fields.get(column)) for column in ("changed", "change_type", "split")}
    if texts["changed"]:
        if texts["changed"] not in CHANGED:
            raise _Wrong("changed is not true, false or empty", texts["changed"])
        labels["changed"] = CHANGED[texts["changed"]]
    if texts["change_type"]:
        labels["change_type"] = texts["change_type"]
        says_changed = texts["change_type"] != UNCHANGED
        if labels.setdefault("changed", says_changed) != says_changed:
            raise _Wrong("changed and change_type contradict each other", texts["change_type"])
    elif labels.get("changed") is False:
        labels["change_type"] = UNCHANGED
    if texts["split"]:
        if texts["split"] not in SPLIT_NAMES:
            raise _Wrong("split is not train, val or test", texts["split"])
        labels["split"] = SPLIT_NAMES[texts["split"]]
    return labels


def _plain(value: Any) -> str:
    """A label in lower case, empty where there is none."""
    return "" if value is None else " ".join(str(value).split()).lower()


def _put_together(pairs: dict[tuple[str, str], _Pair], pair: _Pair) -> None:
    """Adds what a row says to its pair; raises _Wrong, and adds nothing, where earlier rows say otherwise."""
    known = pairs.setdefault((pair.before, pair.after), pair)
    for column, value in pair.labels.items():
        if known.labels.get(column, value) != value:
            raise _Wrong("contradicts an earlier row", f"{column} was {known.labels[column]} in {known.place}")
    known.labels |= pair.labels
    known.captions = tuple(dict.fromkeys(known.captions + pair.captions))


def _records(pairs: list[_Pair], losses: Losses, table: str) -> list[Record]:
    if any("split" in pair.labels for pair in pairs):
        for pair in pairs:
            if "split" not in pair.labels:
                losses.add(f"{table} {pair.place}", "no split, and other rows have one")
        pairs = [pair for pair in pairs if "split" in pair.labels]
    else:
        splits = _splits(pairs)
        for pair in pairs:
            pair.labels["split"] = splits[pair.before]
    units = Units()
    found = []
    for pair in pairs:
        split = pair.labels["split"]
        name = f"{pair.before} // {pair.after}"  # no path has // in it
        found.append(
            Record(
                kind="pair",
                split=split,
                key=key_of(name),
                images={"before.jpg": pair.before, "after.jpg": pair.after},
                id=name,
                captions=pair.captions,
                changed=pair.labels.get("changed"),
                change_type=pair.labels.get("change_type"),
                unit=units.next_of(split),
            )
        )
    return found


def _splits(pairs: list[_Pair]) -> dict[str, Split]:
    """The split of every photo: pairs that share photos, over any number of others, go together."""
    parent: dict[str, str] = {}

    def first(photo: str) -> str:
        while parent.setdefault(photo, photo) != photo:
            parent[photo] = photo = parent[parent[photo]]
        return photo

    for pair in pairs:
        low, high = sorted((first(pair.before), first(pair.after)))
        parent[high] = low
    splits = split_groups(Counter(first(pair.before) for pair in pairs))
    return {photo: splits[first(photo)] for photo in list(parent)}


def _listed(columns: list[str]) -> str:
    """The first columns, with the nearest right name where one is not known."""
    shown = []
    for column in columns[:10]:
        near = difflib.get_close_matches(column, COLUMNS, n=1)
        shown.append(_printable(column) + (f" (did you mean {near[0]}?)" if near and column not in COLUMNS else ""))
    return ", ".join(shown) + (f" and {len(columns) - 10} more" if len(columns) > 10 else "")


def _printable(text: str) -> str:
    """What a user's file says, on one line and short enough to be shown."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
