"""Images that lie in more than one split, byte for byte: a test on them is no test.

Found from the indexes of the tars, which have the length and the CRC-32C of every member; what agrees in both is read
and compared. `python -m shards.check` looks at pixels too, and finds near duplicates.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from shards.format.index import Row
from shards.format.manifest import SPLITS

LISTED = 3  # images that the line of a manifest names


class Place(NamedTuple):
    """Where an image lies: its split, its tar, its row in the tar's index."""

    split: str
    tar: str
    row: Row


def find_twins(
    shards: Sequence[Mapping], rows: Callable[[str], Sequence[Row]], read: Callable[[str, int, int], bytes]
) -> list[list[Place]]:
    """Groups of images of equal bytes that are in more than one split.

    `shards` are entries of a manifest; `rows` gives the index of a tar by its name, `read` bytes of it by name, offset
    and length. Memory grows with the images, 20 bytes each.
    """
    keys, splits, tars = array("Q"), array("b"), array("I")
    for number, shard in enumerate(shards):
        for row in _images(rows(shard["name"])):
            keys.append(row.length << 32 | row.crc32c)
            splits.append(1 << SPLITS.index(shard["split"]))
            tars.append(number)
    if not keys:
        return []
    _, group = np.unique(np.frombuffer(keys, np.uint64), return_inverse=True)
    seen = np.zeros(group.max() + 1, np.int8)
    np.bitwise_or.at(seen, group, np.frombuffer(splits, np.int8))
    suspects = np.bitwise_count(seen)[group] > 1
    alike: dict[tuple[int, int, bytes], list[Place]] = defaultdict(list)
    for number in np.unique(np.frombuffer(tars, np.uint32)[suspects]).tolist():
        shard = shards[number]
        mine = np.frombuffer(tars, np.uint32) == number
        for row, suspect in zip(_images(rows(shard["name"])), suspects[mine], strict=True):
            if suspect:
                digest = hashlib.sha256(read(shard["name"], row.offset, row.length)).digest()
                alike[row.length, row.crc32c, digest].append(Place(shard["split"], shard["name"], row))
    return [found for found in alike.values() if len({place.split for place in found}) > 1]


def _images(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.name.endswith(".json")]


def describe(groups: Sequence[Sequence[Place]]) -> dict:
    """What the manifest says: {"between": {"train and test": images that are in both}, "first": names of members}."""
    between = {}
    for one, other in combinations(SPLITS, 2):
        count = sum({one, other} <= {place.split for place in found} for found in groups)
        if count:
            between[f"{one} and {other}"] = count
    first = [f"{place.split} {place.row.name}" for found in groups[:LISTED] for place in found[:LISTED]]
    return {"between": between, "first": first}


def report(twins: Mapping, where: object) -> Iterator[str]:
    """One line about a manifest's entry; none where there is nothing to tell."""
    if twins.get("between"):
        told = ", ".join(f"{count} in {splits}" for splits, count in twins["between"].items())
        yield (
            f"{where}: the same image, byte for byte, is in several splits: {told} (the first: "
            f"{', '.join(twins['first'][:LISTED])}); scores on them flatter. python -m shards.check {where} lists all"
        )
