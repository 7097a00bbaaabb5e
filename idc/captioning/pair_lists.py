"""Which pairs a command is asked for: two files, two folders, a folder with before/ and after/, or a table.

Tables are those that packing reads (shards.sources.layouts.tables): JSON lines, a JSON list, or CSV with commas,
semicolons or tabs, columns `before` and `after`, paths from the table's folder; a test compares the two. A `name` in
place of both is that of an image in before/ and of one in after/.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = (".csv", ".jsonl", ".json", ".tsv")
COLUMNS = ("before", "after")
NAME = "name"
OF_WINDOWS = ("thumbs.db", "desktop.ini")  # in folders of photos, without being asked for


class PairsError(ValueError):
    """What was given holds no pairs; the message is one line."""


@dataclass(frozen=True)
class Listed:
    """A pair by its names, where it stands ("pairs.csv line 3"), and why it cannot be captioned, if so."""

    place: str
    before: str
    after: str
    fault: str | None = None


def list_pairs(before: str, after: str | None) -> list[Listed]:
    """The pairs of two files or two folders, or (after None) of a folder or a table. PairsError: there are none."""
    first = Path(before)
    if after is not None:
        if first.is_dir() != Path(after).is_dir():
            raise PairsError(f"{before} and {after}: give two images or two folders")
        return _of_folders(first, Path(after)) if first.is_dir() else [Listed(before, before, after)]
    if first.is_dir():
        return _of_folders(first / "before", first / "after")
    if first.suffix.lower() in TABLES:
        return _of_table(first)
    raise PairsError(f"{before}: give two images, two folders, a folder with before/ and after/, or a table")


def _of_folders(before: Path, after: Path) -> list[Listed]:
    """Images of the same name, whatever the ending; those that have no other are named as faults."""
    sides: list[dict[str, Path]] = []
    for folder in (before, after):
        try:
            files = sorted(path for path in folder.iterdir() if path.is_file() and not _is_hidden(path.name))
        except OSError as error:
            raise PairsError(f"{folder} cannot be read ({error.strerror})") from None
        found: dict[str, Path] = {}
        for path in files:
            if path.stem in found:
                raise PairsError(f"{folder} has {found[path.stem].name} and {path.name}: one name must be one image")
            found[path.stem] = path
        sides.append(found)
    if not sides[0].keys() & sides[1].keys():
        raise PairsError(f"{before} and {after} have no two images of the same name")
    pairs = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        one, two = (str(side.get(name, folder / name)) for side, folder in zip(sides, (before, after), strict=True))
        lacking = [str(folder) for side, folder in zip(sides, (before, after), strict=True) if name not in side]
        pairs.append(Listed(name, one, two, f"{lacking[0]} has no image of this name" if lacking else None))
    return pairs


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in OF_WINDOWS


def _of_table(path: Path) -> list[Listed]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PairsError(f"{path} is not UTF-8: save it as UTF-8") from None
    pairs = []
    for place, fields, fault in table_rows(path, text):
        both = str(fields.get(NAME) or "").strip()
        names = [str(fields.get(column) or "").strip() or (both and f"{column}/{both}") for column in COLUMNS]
        names = [name.replace("\\", "/") for name in names]
        fault = fault or next((f"no {column}" for column, name in zip(COLUMNS, names, strict=True) if not name), None)
        one, two = (str(path.parent / name) if name and "://" not in name else name for name in names)
        pairs.append(Listed(f"{path.name} {place}", one, two, fault))
    if all(pair.fault for pair in pairs):
        first = f"; {pairs[0].place}: {pairs[0].fault}" if pairs else ""
        raise PairsError(f"{path} has no row with before and after, or with a name{first}")
    return pairs


def table_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """(place, fields by lower-case column, fault or None) of each row. PairsError: it cannot be divided into rows."""
    start = text.lstrip()[:1]
    if start == "{" or path.suffix.lower() == ".jsonl":
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        yield from (_object(place, line) for place, line in lines)
        return
    if start == "[":
        try:
            values = json.loads(text)
        except ValueError as error:
            raise PairsError(f"{path} is not JSON ({error})") from None
        yield from (_object(f"entry {number}", value) for number, value in enumerate(values, 1))
        return
    head = text.lstrip().partition("\n")[0].lower().replace('"', "")
    delimiter = max(",;\t", key=lambda each: sum(name.strip() in (*COLUMNS, NAME) for name in head.split(each)))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 1
    try:
        for values in rows:
            place, number = f"line {number}", rows.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if not header:
                header = [value.strip().lower() for value in values]
            elif any(value.strip() for value in values[len(header) :]):
                yield place, {}, f"more fields than columns: put quotes around text with {delimiter!r} in it"
            else:
                yield place, dict(zip(header, values, strict=False)), None
    except csv.Error as error:
        raise PairsError(
            f"{path}: the row that begins in line {number} cannot be read ({error}): check its quotes"
        ) from None


def _object(place: str, value: Any) -> tuple[str, dict[str, Any], str | None]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return place, {}, "not JSON"
    if not isinstance(value, dict):
        return place, {}, "not a JSON object"
    return place, {str(column).strip().lower(): field for column, field in value.items()}, None
