"""Splits of data that come without: 80 % train, 10 % val and 10 % test, by names alone, the same at every packing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from shards.format.record import Split

SHARES: dict[Split, int] = {"train": 8, "val": 1, "test": 1}
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_groups(sizes: Mapping[str, int], shares: Mapping[Split, int] = SHARES) -> dict[str, Split]:
    """The split of each group of samples that must stay together, by the group's name; `sizes` counts its samples.

    `shares` are those of the splits that get any, each above 0.
    Groups come in the order of their names' hashes, each to the split that has the smallest part of its share so far,
    among those it fits into. Those too large for val and test come first, so that the others can make up for them.
    """
    parts = sum(shares.values())
    lacking = {split: share * sum(sizes.values()) for split, share in shares.items()}  # in samples times `parts`
    smallest = min(lacking.values())

    def turn(name: str) -> tuple[bool, str]:
        return parts * sizes[name] <= smallest, hashlib.sha256(name.encode()).hexdigest()

    found: dict[str, Split] = {}
    for name in sorted(sizes, key=turn):
        size = parts * sizes[name]
        fitting = [split for split in shares if lacking[split] >= size]
        if fitting:
            split = max(fitting, key=lambda split: lacking[split] / shares[split])
        else:
            split = max(shares, key=lambda split: lacking[split])
        lacking[split] -= size
        found[name] = split
    return found
