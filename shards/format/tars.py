"""Shards on disk: plain WebDataset tars, byte-identical for the same samples, each with its index beside it.

Reading takes exactly what is written: ustar headers of plain files named KEY.NAME. Links, devices, long names, sparse
files and other extensions are refused by name, and no size that a header claims is believed before it is checked.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from shards.errors import DataError
from shards.format import index
from shards.format.index import BLOCK, KEY, MEMBER, MEMBER_LIMIT
from shards.format.whole_files import PARTIAL, sync

KIND_PREFIX = {"pair": "pairs", "photo": "photos", "class": "classes"}
_PLAIN = b"0"
_REFUSED = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe",
    b"g": "an extension header", b"x": "an extension header", b"L": "a long name", b"K": "a long link",
    b"S": "a sparse file",
}  # fmt: skip
_SIZE = re.compile(rb"[0-7]{11}\0")


class Header(NamedTuple):
    """What one tar header says: the member's name and its length in bytes."""

    name: str
    length: int


def shard_name(kind: str, split: str, number: int) -> str:
    """The file name of one shard, e.g. pairs-train-000012.tar."""
    return f"{KIND_PREFIX[kind]}-{split}-{number:06d}.tar"


def write_shard(folder: Path, name: str, samples: Iterable[tuple[str, dict[str, bytes]]]) -> dict:
    """Writes folder/name and its index, each whole or not at all and on the disk (whoever commits syncs the folder).

    `samples` yields (key, {suffix: bytes}), e.g. ("000012", {"before.jpg": ..., "json": ...}); keys have no dots and no
    slashes. Owner, mode and time are fixed, so that the bytes depend on the samples alone.
    Returns {"name", "samples", "bytes", "sha256", "index_sha256"}. Raises DataError for a key that is not allowed or
    comes twice.
    """
    from webdataset import TarWriter  # it imports torch: only those who write wait for that

    path = folder / name
    partial = folder / (name + PARTIAL)
    keys: set[str] = set()
    with open(partial, "wb") as file, TarWriter(file, user="", group="", mode=0o444, mtime=0, encoder=False) as tar:
        for key, members in samples:
            if not KEY.fullmatch(key):
                raise DataError(f"{path}: {key!r} cannot be a sample key: use 1 to 80 of A-Z a-z 0-9 _ -")
            if key in keys:
                raise DataError(f"{path}: the sample key {key!r} comes twice; keys must be unique in the folder")
            keys.add(key)
            tar.write({"__key__": key, **members})
        tar.close()
        sync(file)
    rows = [index.Row(name, offset, len(data), crc32c(data)) for name, offset, data in read_members(partial)]
    entry = {
        "name": name,
        "samples": len(keys),
        "bytes": partial.stat().st_size,
        "sha256": file_sha256(partial),
        "index_sha256": index.write(index.path_of(path), rows),
    }
    os.replace(partial, path)
    return entry


def parse_header(block: bytes) -> Header:
    """The member that a header block begins.

    DataError, in words that follow the tar's name, where the block is damaged or is the header of anything but a plain
    file of at most MEMBER_LIMIT bytes named KEY.NAME. Any single byte that differs from what was written is noticed.
    """
    # The sum of all bytes, its own eight counted as spaces; as tarfile writes it.
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    if len(block) < BLOCK or block[148:156] != b"%06o\0 " % total:
        raise DataError("no tar header, or a damaged one")
    name = ascii(block[:100].rstrip(b"\0"))[2:-1]
    if block[156:157] != _PLAIN:
        raise DataError(f"member {name} is {_REFUSED.get(block[156:157], 'of an unknown type')}, not a plain file")
    if block[345:500].strip(b"\0") or not MEMBER.fullmatch(name):
        raise DataError(f"member {name} is not a plain KEY.NAME file")
    if not _SIZE.fullmatch(block[124:136]):
        raise DataError(f"member {name} has a size that is not 11 octal digits")
    length = int(block[124:135], 8)
    if length > MEMBER_LIMIT:
        raise DataError(f"member {name} claims {length} bytes: more than {MEMBER_LIMIT} are not read")
    return Header(name, length)


def read_members(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(name, data offset, bytes) of every member, by walking the tar's own headers; DataError naming what is wrong."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        while (block := file.read(BLOCK)).strip(b"\0"):
            try:
                name, length = parse_header(block)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            offset = file.tell()
            if offset + length > size:
                raise DataError(f"{path}: cut short inside member {name}")
            yield name, offset, file.read(length)
            file.seek(index.padded(offset + length))


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of bytes."""
    return google_crc32c.value(data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
