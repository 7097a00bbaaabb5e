"""The search for similar captions: exact, the same on any number of threads, ties drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from shards.negatives.neighbours import BLOCK, nearest_captions


def test_nearest_captions_are_the_most_similar_and_ties_are_drawn():
    pool = [f"word{i} common" for i in range(50)] + ["red cube gone", "red cube moved", "blue ball gone"]
    near = nearest_captions(pool, ["red cube vanished"], 5, seed=0)
    assert set(near["red cube vanished"]) == {"red cube gone", "red cube moved"}
    ties = [nearest_captions(pool, ["common"], 8, seed=seed)["common"] for seed in (0, 0, 1)]
    assert ties[0] == ties[1] != ties[2] and len(set(ties[0])) == 8
    assert nearest_captions([], ["x"], 3, 0)["x"] == [] == nearest_captions(["y"], ["x"], 3, 0)["x"]


@pytest.mark.parametrize(("size", "words"), [(300, 30), (BLOCK + 900, 200)])
def test_neighbours_agree_with_an_exhaustive_search(size, words):
    # More captions than a block holds, frequent words and rare ones: every path of the search.
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, words + 1)
    vocabulary = [f"w{i}" for i in range(words)]
    drawn = (rng.choice(vocabulary, 6, p=chance / chance.sum()) for _ in range(size))
    pool = sorted({" ".join(some) for some in drawn} | {f"rare{i} w9" for i in range(size - 100)})
    queries = pool[:: len(pool) // 20]
    near = nearest_captions(pool, queries, 10, seed=3)
    vectors = TfidfVectorizer(token_pattern=r"\S+", max_df=0.5).fit(pool)
    exact = (vectors.transform(queries) @ vectors.transform(pool).T).toarray()
    places = {text: place for place, text in enumerate(pool)}
    for row, query in enumerate(queries):
        got = [exact[row, places[text]] for text in near[query]]
        best = np.sort(exact[row])[::-1][:10]
        assert np.allclose(got, best[best > 0], atol=3e-4)


def test_threads_change_nothing():
    pool = [f"word{i % 50} word{i % 37} other{i}" for i in range(6000)]
    one, two = (nearest_captions(pool, pool, 5, seed=0, threads=threads) for threads in (1, 2))
    assert all(one[query] == two[query] for query in pool)
