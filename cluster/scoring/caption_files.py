"""Files of captions as people have them: JSON, JSON lines, CSV, TSV, and the results format of the COCO tools.

A row names its pair under one of ID_FIELDS and its sentence under one of CAPTION_FIELDS; JSON may also be an object
from names to sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shards.errors import DataError
from shards.format.strict_json import parse_json
from shards.sources.layouts.tables import Row as TableRow
from shards.sources.layouts.tables import read_rows

ID_FIELDS = ("key", "image_id", "id", "img_id", "uid", "filename", "name")  # the first that a row has
CAPTION_FIELDS = ("caption", "prediction", "sentence", "text")
TABLES = (".csv", ".tsv")  # their first line says what separates: commas, semicolons or tabs
LIMIT = 2**30  # bytes of a file


class Row(NamedTuple):
    """A sentence, for the pair that the file calls `name`; `place` says where in the file."""

    name: str
    caption: str
    place: str


def read_captions(path: Path) -> list[Row]:
    """The rows of a file in its order. DataError naming the file and the place where it is not of such a form."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a file of captions") from None
    columns = (*ID_FIELDS, *CAPTION_FIELDS)
    real = path.resolve()  # a link to a file elsewhere is as good
    table = read_rows(real.parent, real.name, columns) if path.suffix.lower() in TABLES else None
    try:
        rows = list(_of_values(data) if table is None else _of_table(table))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not rows:
        raise DataError(f"{path} has no captions")
    return rows


def _of_values(data: bytes) -> Iterator[Row]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"it is empty, not JSON; a table must end in {' or '.join(TABLES)}")
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    first = _parsed(lines[0][1])
    if isinstance(first, dict) and (len(lines) > 1 or _field(first, ID_FIELDS) is not None):  # JSON lines
        for number, line in lines:
            yield _row(_line(line, number), f"line {number}")
        return
    try:
        value = parse_json(data, LIMIT)
    except DataError as error:
        raise DataError(f"{error}; a table must end in {' or '.join(TABLES)}") from None
    yield from _of_value(value)


def _parsed(line: bytes) -> Any:
    """The value in a line; None where it is no JSON by itself."""
    try:
        return parse_json(line, LIMIT)
    except DataError:
        return None


def _line(line: bytes, number: int) -> Any:
    try:
        return parse_json(line)
    except DataError as error:
        raise DataError(f"line {number}: {error}") from None


def _of_value(value: Any) -> Iterator[Row]:
    """A list of rows, such a list under "annotations", or {name: sentence}."""
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, dict):
        for name, said in value.items():
            yield Row(name, _text(said, f"entry {name!r}"), f"entry {name!r}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield _row(one, f"entry {number}")
    else:
        raise DataError("neither a list of captions nor an object from names to captions")


def _of_table(table: Iterable[TableRow]) -> Iterator[Row]:
    for row in table:
        if row.fault:
            raise DataError(f"{row.place}: {row.fault}")
        yield _row(row.fields, row.place)


def _row(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place} is not an object with a name and a caption")
    name, said = _field(row, ID_FIELDS), _field(row, CAPTION_FIELDS)
    if name is None:
        raise DataError(f"{place} does not name its pair: one of {', '.join(ID_FIELDS)} must")
    if said is None:
        raise DataError(f"{place} has no caption: one of {', '.join(CAPTION_FIELDS)} must hold it")
    known = row[name]
    if isinstance(known, bool) or not isinstance(known, (str, int)):
        raise DataError(f"{place}: {name!r} is neither text nor a whole number")
    return Row(str(known), _text(row[said], place), place)


def _field(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _text(said: Any, place: str) -> str:
    """A sentence, which may be empty and may stand alone in a list, as the COCO metrics take it."""
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, str):
        raise DataError(f"{place}: its caption is not one sentence")
    return said
