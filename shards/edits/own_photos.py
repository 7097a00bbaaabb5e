"""The training photos of packed pairs as files, to be edited: none that validation or test have."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.reading.reader import Folder

HELD_OUT = ("val", "test")
ROLES = ("before", "after")


def write_own_photos(shards: Folder, out: Path) -> Path:
    """Writes both images of every training pair to `out`, bytes as they are, and returns it; one that is there is kept.

    An image whose bytes validation or test have too is left out. DataError if none is left.
    """
    if out.is_dir():
        return out
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    held = {hashlib.sha256(data).digest() for split in HELD_OUT for _, data in _images(shards, split)}
    for name, data in _images(shards, "train"):
        if hashlib.sha256(data).digest() not in held:
            (partial / name).write_bytes(data)
    if not any(partial.iterdir()):
        raise DataError(f"{shards.location}: every image of its training pairs is in val or test too")
    os.replace(partial, out)
    return out


def _images(shards: Folder, split: str) -> Iterator[tuple[str, bytes]]:
    """(KEY.ROLE.ENDING, bytes) of each image of the pairs of a split."""
    stream = shards.stream("pair", split)
    for place, key in enumerate(stream.keys):
        for suffix, data in stream.sample(place)[1].items():
            if suffix.partition(".")[0] in ROLES:
                yield f"{key}.{suffix}", data
