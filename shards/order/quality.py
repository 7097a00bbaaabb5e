"""How well an order shuffles a folder, beside a shuffle buffer over sequential shards and a full permutation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from shards.order.permutation import locate

BUFFER = 1000  # samples
EPOCHS = 5  # that figures are means of


def same_shard_share(shard: np.ndarray, batch: int) -> float:
    """How often two samples of one batch lie in one shard: the share of such pairs, mean over the whole batches.

    `shard`: the shard number of each sample of an epoch, in the order they are used (n,). `batch` is 2 or more.
    """
    shares = []
    for start in range(0, len(shard) - batch + 1, batch):
        counts = np.bincount(shard[start : start + batch])
        shares.append((counts * (counts - 1)).sum() / (batch * (batch - 1)))
    return float(np.mean(shares))


def displacement(order: np.ndarray) -> float:
    """Mean |place in the order - place on disk| / n. `order`: the place on disk of each sample used (n,).

    1/3 for a random permutation, 0 where samples are used as they lie.
    """
    return float(np.abs(order - np.arange(len(order))).mean() / len(order))


def rank_correlation(order: np.ndarray) -> float:
    """Spearman's correlation of place in the order and place on disk: 0 for a good shuffle; two samples or more."""
    return float(np.corrcoef(order, np.arange(len(order)))[0, 1])


def quality_table(samples: Sequence[int], seed: int, batch: int) -> str:
    """The measures of three orders, means of EPOCHS epochs, as a table. `samples`: how many each shard holds."""
    size = sum(samples)
    shard = np.repeat(np.arange(len(samples)), samples)
    orders: dict[str, Callable[[int], np.ndarray]] = {
        "this order": lambda epoch: locate(np.arange(epoch * size, (epoch + 1) * size), size, seed)[1],
        f"buffer of {BUFFER:,}": lambda epoch: buffered(samples, seed * EPOCHS + epoch),
        "full permutation": lambda epoch: np.random.default_rng([abs(seed), epoch]).permutation(size),
    }
    lines = [f"{'':20}{'same shard':>12}{'displacement':>14}{'rank correlation':>18}"]
    for name, make in orders.items():
        epochs = [make(epoch) for epoch in range(EPOCHS)]
        share = np.mean([same_shard_share(shard[order], batch) for order in epochs])
        moved = np.mean([displacement(order) for order in epochs])
        related = np.mean([abs(rank_correlation(order)) for order in epochs])
        lines.append(f"{name:20}{share:>12.4f}{moved:>14.4f}{related:>18.4f}")
    about = f"{size:,} samples in {len(samples)} shards, batches of {batch}, mean of {EPOCHS} epochs"
    return "\n".join([about, *lines])


def buffered(samples: Sequence[int], seed: int) -> np.ndarray:
    """An epoch of webdataset's usual recipe as places on disk (n,); the buffer is webdataset's own.

    Shards come in random order, each is read from beginning to end, and samples pass through a shuffle buffer.
    """
    import webdataset

    rng = random.Random(seed)
    starts = np.concatenate([[0], np.cumsum(samples)])
    shards = list(range(len(samples)))
    rng.shuffle(shards)
    places = (place for shard in shards for place in range(starts[shard], starts[shard + 1]))
    return np.fromiter(webdataset.shuffle(BUFFER, rng=rng)(places), np.int64, int(starts[-1]))
