"""A metric of tokenized captions, and those of the COCO caption code that need no Java."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from idc.metrics.cider import NO_WEIGHTS, has_weights

References = Mapping[int, Sequence[str]]  # of pair 0, 1, ...: tokens joined by blanks
Predictions = Mapping[int, Sequence[str]]  # of the same pairs, one sentence each
EACH = "each"  # key of the values of single pairs, (n,) in percent


class Metric(NamedTuple):
    """Figures by name, in percent.

    compute: {name: value}; None for a figure that would mean nothing, and then "reasons" has why, by name. Values of
    single pairs may be under `EACH`.
    """

    names: tuple[str, ...]
    compute: Callable[[References, Predictions], dict[str, Any]]


def _bleu(references: References, predictions: Predictions) -> dict[str, Any]:
    from pycocoevalcap.bleu.bleu import Bleu

    values, _ = Bleu(4).compute_score(references, predictions, verbose=0)
    return {name: 100 * value for name, value in zip(BLEU.names, values, strict=True)}


def _rouge_l(references: References, predictions: Predictions) -> dict[str, Any]:
    from pycocoevalcap.rouge.rouge import Rouge

    return {"ROUGE_L": 100 * float(Rouge().compute_score(references, predictions)[0])}


def _cider(references: References, predictions: Predictions) -> dict[str, Any]:
    from pycocoevalcap.cider.cider import Cider

    # Weights are logarithms of pairs / pairs that have the word: with one pair, or pairs alike, all of them are 0.
    if len(references) < 2:
        return {"CIDEr": None, "reasons": {"CIDEr": "needs two pairs or more"}}
    if not has_weights(references):
        return {"CIDEr": None, "reasons": {"CIDEr": NO_WEIGHTS}}
    mean, each = Cider().compute_score(references, predictions)
    return {"CIDEr": 100 * float(mean), EACH: 100 * np.asarray(each)}


BLEU = Metric(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), _bleu)
ROUGE_L = Metric(("ROUGE_L",), _rouge_l)
CIDER = Metric(("CIDEr",), _cider)
