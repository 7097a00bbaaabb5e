"""Rows of the tables that people write: JSON lines, a JSON list, or CSV with commas, semicolons or tabs.

Names of columns are taken in lower case. A row that cannot be read is given with its fault, so that it can be counted;
a table that cannot be divided into rows is refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.format.strict_json import parse_json
from shards.sources.layouts.layout import read_json, read_text

DELIMITERS = ",;\t"  # spreadsheets write semicolons where the comma is the decimal point


@dataclass(frozen=True)
class Row:
    """A row, where it stands ("line 7"), and why it cannot be read, if so: `fields` is empty then."""

    place: str
    fields: dict[str, Any]
    fault: str | None = None


def read_rows(root: Path, name: str, columns: Collection[str]) -> list[Row]:
    """The rows of a table in UTF-8, by its content: JSON where it begins with { or [, otherwise CSV with a header.

    `columns` are the names that a header is known by. Raises DataError for a table that cannot be divided into rows.
    """
    text = read_text(root, name)
    start = text.lstrip()[:1]
    if start == "{" or name.lower().endswith(".jsonl"):
        return [_json_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if start == "[":
        return [_object_row(f"entry {number}", value) for number, value in enumerate(read_json(root, name, list), 1)]
    return list(_csv_rows(root / name, text, columns))


def _json_row(number: int, line: str) -> Row:
    try:
        parsed = parse_json(line.encode())
    except DataError as error:
        return Row(f"line {number}", {}, str(error))
    return _object_row(f"line {number}", parsed)


def _object_row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(place, {}, "not a JSON object")
    return Row(place, {column.strip().lower(): field for column, field in value.items()})


def _csv_rows(path: Path, text: str, columns: Collection[str]) -> Iterator[Row]:
    delimiter = _delimiter(text, columns)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = lines.line_num + 1  # a row with quoted line ends has several lines; this is its first
        try:
            values = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: the row that begins in line {number} cannot be read ({error}): check its quotes"
            ) from None
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = [value.strip().lower() for value in values]
            for column in header:
                if column and header.count(column) > 1:
                    raise DataError(f"{path}: the column {column!r} comes twice in line {number}; rename one")
        elif any(value.strip() for value in values[len(header) :]):
            fault = f"more fields than columns: put quotes around text with {delimiter!r} in it"
            yield Row(f"line {number}", {}, fault)
        else:
            yield Row(f"line {number}", dict(zip(header, values, strict=False)))


def _delimiter(text: str, columns: Collection[str]) -> str:
    """The one that makes most known columns of the first line."""
    header = text.lstrip().partition("\n")[0].lower().replace('"', "")

    def known(delimiter: str) -> int:
        return sum(column.strip() in columns for column in header.split(delimiter))

    return max(DELIMITERS, key=known)
