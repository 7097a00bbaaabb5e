"""BLEU of any draw of pairs: the counts of each pair, which are summed over a draw, and BLEU of such sums.

BLEU of a corpus is no mean over its pairs, so a bootstrap has to draw counts. A test holds the values against
pycocoevalcap's, whose reference length is that of the reference closest in length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ORDERS = 4
COLUMNS = 2 + 2 * ORDERS  # words said, words of the closest reference, n-grams said, those of them in a reference
_SMALL, _TINY = 1e-9, 1e-15  # as pycocoevalcap has them, so that a figure of nothing is 0


def bleu_counts(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> np.ndarray:
    """(n, COLUMNS) counts of n pairs. references, predictions: tokens joined by blanks."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = []
    for sentences, said in zip(references, predictions, strict=True):
        made = cook_test(said, cook_refs(list(sentences)), "closest")
        rows.append([made["testlen"], made["reflen"], *made["guess"], *made["correct"]])
    return np.array(rows, dtype=float).reshape(-1, COLUMNS)


def bleu(sums: np.ndarray) -> np.ndarray:
    """(k, COLUMNS) counts, each row summed over the pairs of a draw -> (k, 4): BLEU-1 to BLEU-4 in percent."""
    said, wanted = sums[:, 0], sums[:, 1]
    guessed, right = sums[:, 2 : 2 + ORDERS], sums[:, 2 + ORDERS :]
    shares = np.cumprod((right + _TINY) / (guessed + _SMALL), axis=1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (said + _TINY) / (wanted + _SMALL)
    return 100 * shares * np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)[:, None]
