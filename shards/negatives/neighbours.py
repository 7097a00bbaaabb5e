"""The captions most similar to a caption, by TF-IDF: all queries against all captions, block by block."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from shards.order import permutation
from shards.wording.segmentation import WORD

BLOCK = 8192  # captions scored at a time: their scores stay in the processor's first cache
CHUNK = 2048  # queries a task
FREQUENT = 1 / 16  # words in this share of a block are added to all of its scores at once
STRIP = 64  # scores looked through at a time
COMMON = 0.5  # words in more than this share of the captions tell nothing and cost the most
COMMON_FROM = 100  # captions from which that share means something
# Weights are 15-bit integers, so that a similarity is an exact sum and ties fall the same way on every machine.
_ONE = 32767
_EMPTY = np.iinfo(np.int64).max


class Neighbours:
    """For each query its nearest captions, most similar first: `neighbours[query]` is a list of sentences."""

    def __init__(self, captions: list[str], queries: list[str], places: np.ndarray) -> None:
        """`places` (queries, count) int32 are places in `captions`, -1 after the last."""
        self._captions = captions
        self._rows = {query: row for row, query in enumerate(queries)}
        self._places = places

    def __getitem__(self, query: str) -> list[str]:
        return [self._captions[place] for place in self._places[self._rows[query]] if place >= 0]


def nearest_captions(
    pool: Collection[str], queries: Collection[str], count: int, seed: int, threads: int = 1
) -> Neighbours:
    """For each query up to `count` sentences of the pool with a telling word in common, most similar first.

    Equally similar ones come in an order drawn by the seed. Deterministic whatever the number of threads; a query finds
    itself if it is in the pool. Time grows with len(pool) * len(queries), memory with their sum.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to import

    names = sorted(set(pool))
    wanted = sorted(set(queries))
    nobody = np.full((len(wanted), count), -1, np.int32)
    if not names or not wanted:
        return Neighbours(names, wanted, nobody)
    captions = [names[place] for place in permutation.permute(np.arange(len(names)), len(names), seed, 0)]
    vectorizer = TfidfVectorizer(
        token_pattern=WORD.pattern, dtype=np.float32, max_df=COMMON if len(captions) >= COMMON_FROM else 1.0
    )
    try:
        vectors = _whole(vectorizer.fit_transform(captions))
    except ValueError:  # every word is in nearly every caption
        return Neighbours(captions, wanted, nobody)
    asked = _whole(vectorizer.transform(wanted))
    blocks = []
    for start in range(0, len(captions), BLOCK):
        blocks.append(_block(vectors[start : start + BLOCK]))
    del vectors

    def search(start: int) -> np.ndarray:
        rows = asked[start : start + CHUNK]
        best = np.full((rows.shape[0], 4 * count), _EMPTY, np.int64)
        found = np.zeros(rows.shape[0], np.int64)
        floor = np.zeros(rows.shape[0], np.int32)
        for number, block in enumerate(blocks):
            _score(rows.indptr, rows.indices, rows.data, *block, number * BLOCK, best, found, floor, count)
        best = np.sort(best, axis=1)[:, :count]
        return np.where(best == _EMPTY, -1, best & 0xFFFFFFFF).astype(np.int32)

    with ThreadPoolExecutor(threads) as workers:
        places = np.concatenate(list(workers.map(search, range(0, len(wanted), CHUNK))))
    return Neighbours(captions, wanted, places)


def _whole(vectors):
    """The sparse matrix with its weights as integers of 15 bits."""
    vectors.data = np.round(vectors.data * _ONE).astype(np.int16)
    return vectors


def _block(vectors) -> tuple[np.ndarray, ...]:
    """The weights of a block of captions by word; those of frequent words also as full rows, which add up faster."""
    columns = vectors.T.tocsr()
    frequent = np.flatnonzero(np.diff(columns.indptr) >= FREQUENT * BLOCK)
    full = np.zeros((len(frequent), BLOCK), np.int16)
    full[:, : columns.shape[1]] = columns[frequent].toarray()
    full_row = np.full(columns.shape[0], -1, np.int32)
    full_row[frequent] = np.arange(len(frequent))
    return columns.indptr.astype(np.int32), columns.indices.astype(np.uint16), columns.data, full_row, full


@njit(cache=True, nogil=True)
def _score(
    query_start, query_word, query_weight, word_start, column, weight, full_row, full, first, best, found, floor, count
):
    """Enters the captions of one block, whose first place is `first`, into the best of each query.

    Rows of `query_*` are queries (CSR); the rest of a block is as _block makes it. `best` (queries, 4 * count) holds
    keys that sort by similarity, then by place; `found` how many there are. When a row is full, its best `count` stay,
    and `floor` is the similarity of the last of them. Places grow, so what only ties with it is out.
    """
    scores = np.zeros(BLOCK, np.int32)
    for query in range(len(query_start) - 1):
        scores[:] = 0
        for entry in range(query_start[query], query_start[query + 1]):
            word, factor = query_word[entry], np.int32(query_weight[entry])
            if full_row[word] >= 0:
                weights = full[full_row[word]]
                for place in range(BLOCK):
                    scores[place] += np.int32(factor * weights[place])
                continue
            for posting in range(word_start[word], word_start[word + 1]):
                scores[column[posting]] += np.int32(factor * weight[posting])
        row = best[query]
        for start in range(0, BLOCK, STRIP):
            highest = np.int32(0)
            for place in range(start, start + STRIP):
                highest = max(highest, scores[place])
            if highest <= floor[query]:
                continue
            for place in range(start, start + STRIP):
                if scores[place] > floor[query]:
                    row[found[query]] = (np.int64(-scores[place]) << 32) | np.int64(first + place)
                    found[query] += 1
                    if found[query] == len(row):
                        row.sort()
                        row[count:] = _EMPTY
                        found[query] = count
                        floor[query] = -(row[count - 1] >> 32)
