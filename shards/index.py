"""The index beside each tar: where every member lies, so that a sample is one positioned read.

`pairs-train-000000.index.tsv` has one line a member, in the order of the tar:
member name, offset of its data in the tar, length in bytes, CRC-32C of the data (8 hexadecimal digits), tab-separated.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shards.errors import DataError

ENDING = ".index.tsv"
_LINE = re.compile(r"([^\t]+)\t(\d{1,18})\t(\d{1,18})\t([0-9a-f]{8})")


class Row(NamedTuple):
    """One member of a tar: its name, where its data begins and how long it is (bytes), and their CRC-32C."""

    name: str
    offset: int
    length: int
    crc32c: int


def path_of(tar: Path) -> Path:
    """The index that belongs to a tar."""
    return tar.with_name(tar.name.removesuffix(".tar") + ENDING)


def write(path: Path, rows: Sequence[Row]) -> str:
    """Writes an index, whole or not at all, and returns its SHA-256."""
    text = "".join(f"{row.name}\t{row.offset}\t{row.length}\t{row.crc32c:08x}\n" for row in rows).encode()
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(text)
    os.replace(partial, path)
    return hashlib.sha256(text).hexdigest()


def parse(data: bytes, path: Path) -> list[Row]:
    """The rows of an index file's bytes; DataError naming the file and the line where they are not one."""
    rows = []
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not an index (not text): pack the folder again") from None
    if lines[-1]:
        raise DataError(f"{path}: the last line is cut short: pack the folder again")
    for number, line in enumerate(lines[:-1], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}: line {number} is not 'name, offset, length, crc32c': pack the folder again")
        rows.append(Row(match[1], int(match[2]), int(match[3]), int(match[4], 16)))
    return rows
