"""Writes shards: plain WebDataset tars, byte-identical for the same samples, each with its index beside it."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c

from shards import index
from shards.errors import DataError

PARTIAL = ".partial"  # ending of files being written; a finished name is never half-written
KIND_PREFIX = {"pair": "pairs", "photo": "photos", "class": "classes"}
# No dots (a WebDataset key ends at the first one), no slashes, short enough that no tar header needs an extension.
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MEMBER = re.compile(r"[A-Za-z0-9_-]{1,80}(\.[a-z0-9]{1,8}){1,2}")


def shard_name(kind: str, split: str, number: int) -> str:
    """The file name of one shard, e.g. pairs-train-000012.tar."""
    return f"{KIND_PREFIX[kind]}-{split}-{number:06d}.tar"


def write_shard(folder: Path, name: str, samples: Iterable[tuple[str, dict[str, bytes]]]) -> dict:
    """Writes folder/name and its index, each whole or not at all.

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


def read_members(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(name, data offset, bytes) of every member, by walking the tar's own headers."""
    with tarfile.open(path, "r:") as tar, open(path, "rb") as file:
        for member in tar:
            file.seek(member.offset_data)
            yield member.name, member.offset_data, file.read(member.size)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of bytes."""
    return google_crc32c.value(bytes(data))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
