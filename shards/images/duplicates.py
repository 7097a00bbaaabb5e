"""Near duplicates among many pictures, without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shards.images.fingerprints import HASH_LIMIT, THUMBNAIL_LIMIT

BANDS = 4
BAND_BITS = 64 // BANDS
BLOCK = 1 << 22  # candidate pairs looked at together
COMPARED = 1 << 14  # pairs of thumbnails compared together


def pairs_within(hashes: np.ndarray, distance: int = HASH_LIMIT) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (i, j), i < j, of 64-bit hashes that differ in at most `distance` bits, each once, in blocks.

    Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012): if
    two hashes differ in at most d bits, one of their four bands differs in at most d // 4. So each band is looked up in
    a table under each change of so few bits. `hashes` is uint64; the blocks are int64 arrays. Memory is bounded; time
    grows with the pairs that agree in a band.
    """
    reach = distance // BANDS
    bands = _bands(hashes)
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        sizes = np.bincount(band, minlength=1 << BAND_BITS)
        starts = np.cumsum(sizes) - sizes
        for change in _changes(reach):
            wanted = band ^ change
            for i, place in _spans(starts[wanted], sizes[wanted]):
                j = order[place]
                keep = i < j
                i, j = i[keep], j[keep]
                near = np.bitwise_count(hashes[i] ^ hashes[j]) <= distance
                for earlier in bands[:number]:  # found there already
                    near &= np.bitwise_count(earlier[i] ^ earlier[j]) > reach
                if near.any():
                    yield i[near], j[near]


def groups(hashes: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """A number for each picture, int32, the same for near duplicates and for what chains of them join.

    `hashes` is uint64 (n,), `thumbnails` int8 (n, cells), as shards.images.fingerprints makes them.
    """
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for i, j in pairs_within(hashes):
        for start in range(0, len(i), COMPARED):
            span = slice(start, start + COMPARED)
            difference = np.abs(thumbnails[i[span]].astype(np.int16) - thumbnails[j[span]])
            alike = difference.max(axis=1) <= THUMBNAIL_LIMIT
            rows.append(i[span][alike])
            columns.append(j[span][alike])
    i, j = np.concatenate(rows), np.concatenate(columns)
    links = coo_array((np.ones(len(i), np.bool_), (i, j)), shape=(len(hashes), len(hashes)))
    return connected_components(links, directed=False)[1]


def _bands(hashes: np.ndarray) -> list[np.ndarray]:
    """Every fourth bit of the hashes, from each of the first four: bits that lie together say similar things."""
    bands = []
    for number in range(BANDS):
        band = np.zeros(len(hashes), np.int64)
        for bit in range(BAND_BITS):
            band |= (hashes >> np.uint64(number + BANDS * bit) & np.uint64(1)).astype(np.int64) << bit
        bands.append(band)
    return bands


def _changes(reach: int) -> Iterator[int]:
    """All numbers of BAND_BITS bits of which at most `reach` are set."""
    for size in range(reach + 1):
        for bits in combinations(range(BAND_BITS), size):
            yield sum(1 << bit for bit in bits)


def _spans(first: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(query, place) for each place of [first, first + count) of each query, about BLOCK at a time."""
    queries = np.flatnonzero(count)
    ends = np.cumsum(count[queries])
    start = 0
    while start < len(queries):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK, "right")), start + 1)
        chosen = queries[start:stop]
        sizes = count[chosen]
        before = np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield np.repeat(chosen, sizes), np.repeat(first[chosen], sizes) + np.arange(len(before)) - before
        start = stop
