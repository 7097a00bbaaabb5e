"""Confidence intervals by the bootstrap: how far a mean over pairs may be off by the luck of which pairs there are.

Pairs are drawn one by one, with replacement, as many as there are. Two pairs that share an image count as two.
Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, percentile intervals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESAMPLES, SEED = 1000, 0
LEVEL = 95.0  # percent
_TAIL = (100 - LEVEL) / 200  # share beyond each end
_AT_ONCE = 50  # resamples held in memory


def resampled_sums(values: np.ndarray) -> np.ndarray:
    """(n, k) values of n pairs -> (RESAMPLES, k) sums over the pairs of each draw.

    All k columns are of the same draws, the same in every process: figures of two methods for the same n pairs can be
    subtracted draw by draw.
    """
    count, rng, parts = len(values), np.random.default_rng(SEED), []
    for first in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - first)
        times = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(size)]
        parts.append(np.stack(times) @ values)
    return np.concatenate(parts)


def resampled_means(values: np.ndarray) -> np.ndarray:
    """(n, k) values of n pairs, NaN where a pair does not count -> (RESAMPLES, k) means over the pairs that do.

    NaN where no pair of a draw counts. The draws are those of `resampled_sums`.
    """
    counted = ~np.isnan(values)
    both = np.hstack([np.where(counted, values, 0.0), counted.astype(float)])
    sums, counts = np.split(resampled_sums(both), [values.shape[1]], axis=1)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def interval(draws: np.ndarray) -> list[float] | None:
    """[low, high] of resampled figures, NaN left out; None where all are the same, for that says nothing of chance."""
    draws = draws[~np.isnan(draws)]
    if not draws.size or np.ptp(draws) <= 1e-9 * max(1.0, float(np.abs(draws).max())):
        return None
    return [float(end) for end in np.quantile(draws, [_TAIL, 1 - _TAIL])]


def paired_difference(differences: np.ndarray) -> dict[str, Any]:
    """{"interval", "p"} of the resampled differences of two methods on the same pairs.

    p: of no difference, two-sided: twice the share of draws on the other side of 0, those that are 0 counted against
    it; at least 2 / (RESAMPLES + 1). Both are None where all draws are the same. Source: P. Koehn, Statistical
    significance tests for machine translation evaluation, EMNLP 2004; Efron and Tibshirani, chapter 15.
    """
    ends = interval(differences)
    if ends is None:
        return {"interval": None, "p": None}
    differences = differences[~np.isnan(differences)]
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return {"interval": ends, "p": min(1.0, 2 * (fewer + 1) / (len(differences) + 1))}


def all_alike(share: float, count: int) -> list[float]:
    """[low, high] in percent of a share that all (100) or none (0) of `count` pairs have: the exact binomial interval.

    Resamples of such pairs are all alike. Source: C. Clopper, E. Pearson, Biometrika 26 (1934).
    """
    off = 100 * (1 - _TAIL ** (1 / count))
    return [100 - off, 100.0] if share else [0.0, off]
