"""A classifier that sees no image: how often words and pairs of words alone pick the true caption of a list.

A logistic regression over lists: a sentence scores the sum of the weights of what it says, and a softmax over the list
picks. FDA scores sentences one by one too, so what this finds in the text is there for FDA to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from shards.wording.segmentation import words_of

ROUNDS, RATE = 150, 0.5  # of AdaGrad over all lists at once
DECAY = 1e-4  # of the weights, as part of the loss
FEWEST = 20  # lists that it learns from, and that it is asked
LONGEST = 40  # words from which lengths count as one

ListsOfTexts = Sequence[Sequence[str]]  # the true caption first


def picked(learnt: ListsOfTexts, asked: ListsOfTexts) -> float | None:
    """Percent of the lists `asked` whose first sentence has the highest score, ties by their share.

    It has learnt from the lists `learnt`, which should be of other samples. None where there are too few of either.
    """
    if min(len(learnt), len(asked)) < FEWEST:
        return None
    weights = _fitted(learnt)
    right = 0.0
    for texts in asked:
        scores = np.array([sum(weights.get(said, 0.0) for said in _said(text)) for text in texts])
        best = np.isclose(scores, scores.max())
        right += float(best[0]) / int(best.sum())
    return round(100 * right / len(asked), 1)


def _fitted(lists: ListsOfTexts) -> dict[str, float]:
    """The weight of each word and pair of words, and of each length."""
    said = [_said(text) for texts in lists for text in texts]
    number = {name: place for place, name in enumerate(dict.fromkeys(name for names in said for name in names))}
    places, lengths = np.array([number[name] for names in said for name in names]), np.array(list(map(len, said)))
    first = np.cumsum([0, *lengths[:-1]])  # of each sentence, among the places
    sizes = np.array(list(map(len, lists)))
    start = np.cumsum([0, *sizes[:-1]])  # of each list, among the sentences
    true = np.zeros(len(said))
    true[start] = 1.0
    weights, seen = np.zeros(len(number)), np.full(len(number), 1e-8)
    for _ in range(ROUNDS):
        scores = np.add.reduceat(weights[places], first)
        odds = np.exp(scores - np.repeat(np.maximum.reduceat(scores, start), sizes))
        wrong = odds / np.repeat(np.add.reduceat(odds, start), sizes) - true
        slope = np.bincount(places, np.repeat(wrong, lengths), len(number)) / len(lists) + DECAY * weights
        seen += slope**2
        weights -= RATE * slope / np.sqrt(seen)
    return dict(zip(number, weights.tolist(), strict=True))


@lru_cache(maxsize=1 << 15)
def _said(text: str) -> tuple[str, ...]:
    """What a sentence is scored by, nothing twice."""
    words = words_of(text.lower())
    pairs = map(" ".join, zip(["", *words], [*words, ""], strict=True))
    return tuple(dict.fromkeys((f"{min(len(words), LONGEST)} words", *words, *pairs)))
