"""Shard folders and object stores: opened, and one sample of each read and checked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.checks.finding import Finding, miss, ok
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.tars import crc32c
from shards.reading.object_store import Bucket, is_url
from shards.reading.reader import Folder


def look(settings: Mapping[str, Any]) -> list[Finding]:
    """settings: {"shards": [folder or URL]}, one of them a process."""
    return [_look(place) for place in settings["shards"]]


def _look(place: str) -> Finding:
    started = time.perf_counter()
    try:
        found, key = _in_store(place) if is_url(place) else _in_folder(Path(place))
    except DataError as error:
        what, _, fix = " ".join(str(error).split()).partition("; ")
        return miss("data", what, fix or "see docs/data.md")
    samples = sum(shard["samples"] for shard in found["shards"])
    took = time.perf_counter() - started
    return ok("data", f"{place}: {samples:,} samples in {len(found['shards'])} shards, {key} read",
              seconds=round(took, 2))  # fmt: skip


def _in_folder(path: Path) -> tuple[dict, str]:
    """(manifest, key of the sample that was read)."""
    folder = Folder.open(path)
    shard = _first(folder.manifest, path)
    stream = folder.stream(shard["kind"], shard["split"])
    stream.read(0)  # checks every member's crc32c
    return folder.manifest, stream.keys[0]


def _in_store(url: str) -> tuple[dict, str]:
    """The same past the cache: a few kilobytes, where a cache would fetch a whole tar."""
    bucket = Bucket(url)
    found, altered = manifest.parse(bucket.read(manifest.FILE), f"{url}/{manifest.FILE}")
    if altered:
        raise DataError(altered)
    shard = _first(found, url)
    listed = index.path_of(Path(shard["name"]))
    row = index.parse(bucket.read(listed.name), listed)[0]
    if crc32c(bucket.read_at(shard["name"], row.offset, row.length)) != row.crc32c:
        raise DataError(f"{url}/{shard['name']}: member {row.name} is damaged (crc32c differs); upload it again")
    return found, row.name.partition(".")[0]


def _first(found: dict, place: object) -> dict:
    shards = [shard for shard in found["shards"] if shard["samples"]]
    if not shards:
        raise DataError(f"{place} has no samples; pack it again")
    return shards[0]
