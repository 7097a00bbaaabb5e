"""Which samples take the place of one that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from shards.order.permutation import generator

TRIES = 20  # with half of a folder unreadable, one draw in a million finds none


def replacements(position: int, size: int, seed: int, epoch: int) -> Iterator[int]:
    """The samples, of `size`, to be tried in turn where the one at a position is bad: TRIES draws of its own.

    A function of the arguments alone, so every number of ranks and every resumed run takes the same.
    """
    draws = generator(seed, epoch, position, "replacement")
    for _ in range(TRIES):
        yield int(draws.integers(size))
