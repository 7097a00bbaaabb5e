"""BLEU-4, ROUGE_L and CIDEr over the draws of the bootstrap: of a set of pairs, and of each pair in it.

Two methods on the same pairs have the same draws, so their figures can be subtracted draw by draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from idc.metrics.bleu_counts import bleu, bleu_counts
from idc.metrics.bootstrap import resampled_means, resampled_sums
from idc.metrics.cider import Cider, has_weights


class Drawn(NamedTuple):
    """One figure in percent."""

    value: float  # of the set
    draws: np.ndarray  # (RESAMPLES,)
    each: np.ndarray  # (n,) of each pair by itself; of BLEU, which is no mean, only to compare pairs


def drawn_figures(references: Sequence[Sequence[str]], captions: Sequence[str]) -> dict[str, Drawn]:
    """{"BLEU-4", "ROUGE_L", "CIDEr"} of n pairs, one or more; CIDEr only if some word has a weight.

    references, captions: tokens joined by blanks, of none nothing. Document frequencies are those of all n pairs.
    """
    from pycocoevalcap.rouge.rouge import Rouge

    counts = bleu_counts(references, captions)
    whole, draws, each = (bleu(of)[:, -1] for of in (counts.sum(0, keepdims=True), resampled_sums(counts), counts))
    found = {"BLEU-4": Drawn(float(whole[0]), draws, each)}
    numbered = {str(number): sentences for number, sentences in enumerate(references)}
    said = {str(number): text for number, text in enumerate(captions)}
    _, rouge = Rouge().compute_score(numbered, {key: [text] for key, text in said.items()})
    found["ROUGE_L"] = _mean(100 * np.asarray(rouge))
    if has_weights(numbered):
        found["CIDEr"] = _mean(np.array(list(Cider(numbered).scores(said).values())))
    return found


def _mean(each: np.ndarray) -> Drawn:
    return Drawn(float(each.mean()), resampled_means(each[:, None])[:, 0], each)
