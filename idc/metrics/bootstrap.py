"""Confidence intervals by the bootstrap: how far a mean over pairs may be off by the luck of which pairs there are.

Pairs are drawn one by one, with replacement, as many as there are. Two pairs that share an image count as two.
Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, percentile intervals.
"""

from __future__ import annotations

import numpy as np

RESAMPLES, SEED = 1000, 0
LEVEL = 95.0  # percent
_TAIL = (100 - LEVEL) / 200  # share beyond each end
_AT_ONCE = 50  # resamples held in memory


def resampled_means(values: np.ndarray) -> np.ndarray:
    """(n, k) values of n pairs, NaN where a pair does not count -> (RESAMPLES, k) means over the pairs that do.

    All k columns are of the same draws, the same in every process. NaN where no pair of a draw counts.
    """
    count, columns = values.shape
    counted = ~np.isnan(values)
    both = np.hstack([np.where(counted, values, 0.0), counted.astype(float)])
    rng, parts = np.random.default_rng(SEED), []
    for first in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - first)
        times = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(size)]
        parts.append(np.stack(times) @ both)
    sums, counts = np.split(np.concatenate(parts), [columns], axis=1)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def interval(draws: np.ndarray) -> list[float] | None:
    """[low, high] of resampled figures, NaN left out; None where all are the same, for that says nothing of chance."""
    draws = draws[~np.isnan(draws)]
    if not draws.size or np.ptp(draws) <= 1e-9 * max(1.0, float(np.abs(draws).max())):
        return None
    return [float(end) for end in np.quantile(draws, [_TAIL, 1 - _TAIL])]


def all_alike(share: float, count: int) -> list[float]:
    """[low, high] in percent of a share that all (100) or none (0) of `count` pairs have: the exact binomial interval.

    Resamples of such pairs are all alike. Source: C. Clopper, E. Pearson, Biometrika 26 (1934).
    """
    off = 100 * (1 - _TAIL ** (1 / count))
    return [100 - off, 100.0] if share else [0.0, off]
