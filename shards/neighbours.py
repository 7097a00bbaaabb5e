"""The captions most similar to a caption, by TF-IDF."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from shards import order

POOL = 20_000  # captions searched; of a larger split a drawn share, so that time grows with the queries alone
BLOCK = 512  # queries at a time
COMMON = 0.5  # words in more than this share of the captions tell nothing and cost the most
COMMON_FROM = 100  # captions from which that share means something
_RESOLUTION = 1_000_000  # similarities are compared as integers, so that ties fall the same way on every machine


def nearest_captions(pool: Collection[str], queries: Collection[str], count: int, seed: int) -> dict[str, list[str]]:
    """For each query up to `count` sentences of the pool with a word in common, most similar first.

    Equally similar ones come in an order drawn by the seed. Deterministic; a query finds itself if it is in the pool.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to import

    names = sorted(pool)
    wanted = sorted(queries)
    if not names or not wanted:
        return {query: [] for query in wanted}
    shuffled = order.permute(np.arange(len(names)), len(names), seed, 0)
    captions = [names[place] for place in shuffled[:POOL]]
    vectorizer = TfidfVectorizer(
        token_pattern=r"\S+", dtype=np.float32, max_df=COMMON if len(captions) >= COMMON_FROM else 1.0
    )
    try:
        columns = vectorizer.fit_transform(captions).T.tocsr()
    except ValueError:  # every word is in nearly every caption
        return {query: [] for query in wanted}
    found = {}
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        similar = vectorizer.transform(block) @ columns
        for row, query in enumerate(block):
            span = slice(similar.indptr[row], similar.indptr[row + 1])
            found[query] = [captions[place] for place in _best(similar.data[span], similar.indices[span], count)]
    return found


def _best(similarity: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest similarities, largest first, then by place."""
    rank = np.round(similarity * -_RESOLUTION).astype(np.int64) * POOL + place
    if rank.size > count:
        rank = rank[np.argpartition(rank, count)[:count]]
    return np.sort(rank) % POOL
