"""Several sources in one order: which source stands at a position, and which of its samples, as pure functions.

Sources take turns in a fixed pattern as long as the sum of their weights, written as the smallest whole numbers with
these ratios. The pattern is Tijdeman's ("The chairman assignment problem", Discrete Mathematics 32, 1980): at every
prefix of the sequence, each source has come within one sample of its share. Each source walks through its own samples
by `permutation.locate`, so that within each of its epochs nothing is dropped or repeated, whatever the others do. A
position is found in O(1), and with whole numbers alone, so that every machine finds the same. One source by itself has
the order that `permutation.locate` gives.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from shards.errors import DataError
from shards.order import permutation

LONGEST_PATTERN = 1 << 16  # the pattern is held in memory

_WEIGHT = re.compile(r"\d{1,18}(\.\d{1,18})?(e-?\d{1,2})?|\d{1,18}/0{0,17}[1-9]\d{0,17}", re.ASCII)


class Mixture:
    """The order of samples from sources of `sizes` samples that come in the ratios of `weights`."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[Fraction | int]) -> None:
        """`sizes` and `weights` by source, each above 0. DataError for weights that need too long a pattern."""
        if not sizes or len(sizes) != len(weights) or min(sizes) < 1 or min(weights) <= 0:
            raise DataError("a mixture needs one or more sources, each with samples and a weight above 0")
        self.sizes = tuple(sizes)
        shares = _whole_numbers(weights)
        if sum(shares) > LONGEST_PATTERN:
            raise DataError(
                f"the weights {', '.join(map(str, weights))} are in the ratio {':'.join(map(str, shares))}, which adds "
                f"up to more than {LONGEST_PATTERN}: round them"
            )
        self._shares = np.array(shares, dtype=np.int64)
        self._pattern = np.array(_pattern(shares), dtype=np.int64)
        self._turn = np.empty_like(self._pattern)  # how often the source of a place came before it in the pattern
        for source, share in enumerate(shares):
            self._turn[self._pattern == source] = np.arange(share)

    def locate(self, position: int | np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(source, epoch of that source, sample index in it) at positions 0, 1, ... of the endless sequence.

        int64 of the shape of `position`. Raises ValueError where one is negative.
        """
        positions = np.asarray(position, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"position {positions.min()} is negative")
        rounds, places = np.divmod(positions, len(self._pattern))
        source = self._pattern[places]
        turn = rounds * self._shares[source] + self._turn[places]
        epoch, index = np.empty_like(turn), np.empty_like(turn)
        for number in np.unique(source).tolist():
            mine = source == number
            epoch[mine], index[mine] = permutation.locate(turn[mine], self.sizes[number], source_seed(seed, number))
        return source, epoch, index


def source_seed(seed: int, number: int) -> int:
    """The seed of a source's own order: sources of one size must not go through the same shuffle.

    That of the first is `seed`, so that what is mixed in later does not change its order.
    """
    if number == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{int(seed)}|source {number}".encode(), digest_size=7).digest(), "little")


def parse_weight(text: str) -> Fraction:
    """A weight as it is typed: 2, 0.5 or 1/3. DataError where it is none, or not above 0."""
    if not _WEIGHT.fullmatch(text) or not Fraction(text):
        raise DataError(f"the weight {text!r} is not a number above 0, such as 2, 0.5 or 1/3")
    return Fraction(text)


def _whole_numbers(weights: Sequence[Fraction | int]) -> list[int]:
    """The smallest whole numbers in the ratios of the weights."""
    fractions = [Fraction(weight) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    numbers = [int(fraction * scale) for fraction in fractions]
    return [number // math.gcd(*numbers) for number in numbers]


def _pattern(shares: Sequence[int]) -> list[int]:
    """The source at each place of a pattern in which source i comes shares[i] times, never 1 from its share or more.

    With k sources a turn may be taken once a source is owed 1 / (2k - 2) of a sample, and must be before it is owed
    1 - 1 / (2k - 2) without it; of those that may, the one that must the soonest goes first (Tijdeman, theorem 1).
    """
    if len(shares) == 1:
        return [0] * shares[0]
    total, slack = sum(shares), 2 * len(shares) - 2
    # Deadlines ((turns + 1) * slack - 1) / share, times a number that makes them whole.
    units = [math.lcm(*shares) // share for share in shares]
    deadlines = [(slack - 1) * unit for unit in units]
    turns = [0] * len(shares)
    pattern = []
    for place in range(1, total + 1):
        may = [i for i, share in enumerate(shares) if slack * (share * place - turns[i] * total) >= total]
        source = min(may, key=deadlines.__getitem__)
        deadlines[source] += slack * units[source]
        turns[source] += 1
        pattern.append(source)
    return pattern
