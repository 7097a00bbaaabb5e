"""The index beside each tar: where every member lies, so that a sample is one positioned read.

`pairs-train-000000.index.tsv` has one line a member, in the order of the tar:
member name, offset of its data in the tar, length in bytes, CRC-32C of the data (8 hexadecimal digits), tab-separated.
Members follow one another without gaps, each a header block and its data filled up to whole blocks, so an index that
points anywhere else is refused, and no read can be larger than a few members.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from shards.errors import DataError
from shards.format.whole_files import write_whole

ENDING = ".index.tsv"
BLOCK = 512  # bytes of a tar header; data are filled up to a multiple of it
LIMIT = 64 * 2**20  # bytes of an index: half a million members
MEMBER_LIMIT = 256 * 2**20  # bytes of one member, which is read into memory whole
# No dots in a key (a WebDataset key ends at the first one), no slashes, short enough that no tar header needs an
# extension.
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MEMBER = re.compile(KEY.pattern + r"(\.[a-z0-9]{1,8}){1,2}")
_LINE = re.compile(rf"({MEMBER.pattern})\t(\d{{1,18}})\t(\d{{1,18}})\t([0-9a-f]{{8}})", re.ASCII)


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
    write_whole(path, text)
    return hashlib.sha256(text).hexdigest()


def read(path: Path) -> bytes:
    """The bytes of an index file; DataError where there are more than any tar needs. Raises OSError as open does."""
    with open(path, "rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise DataError(f"{path}: more than {LIMIT} bytes, which is no index: pack the folder again")
    return data


def parse(data: bytes, path: Path) -> list[Row]:
    """The rows of an index file's bytes; DataError naming the file and the line where they are not one."""
    rows: list[Row] = []
    names: set[str] = set()
    keys: set[str] = set()
    key, end = "", 0  # of the member before

    def fail(what: str) -> NoReturn:
        raise DataError(f"{path}: {what}: pack the folder again")

    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        fail("not an index (not text)")
    if lines[-1]:
        fail("the last line is cut short")
    for number, line in enumerate(lines[:-1], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            fail(f"line {number} is not 'name, offset, length, crc32c' ({ascii(line[:90])})")
        row = Row(match[1], int(match[3]), int(match[4]), int(match[5], 16))
        if row.offset != end + BLOCK:
            fail(f"line {number}: member {row.name} lies at {row.offset}, not {end + BLOCK}, behind the one before")
        if row.length > MEMBER_LIMIT:
            fail(f"line {number}: member {row.name} of {row.length} bytes, more than {MEMBER_LIMIT} are not read")
        if row.name in names:
            fail(f"line {number}: member {row.name} comes twice")
        if (of := row.name.partition(".")[0]) != key and of in keys:
            fail(f"line {number}: the members of sample {of} do not lie together")
        names.add(row.name)
        keys.add(of)
        rows.append(row)
        key, end = of, padded(row.offset + row.length)
    return rows


def padded(size: int) -> int:
    """`size` bytes filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
