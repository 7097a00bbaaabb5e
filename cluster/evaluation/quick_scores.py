"""Scores of captions during fine-tuning: quick, without Java, on the words as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.evaluation.scores import ACCURACIES, accuracies, change_of
from idc.metrics.coco import cider
from idc.metrics.segmentation import spaced


def validation_scores(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """CIDEr, ROUGE_L and BLEU-4 on white-space tokens, CIDEr of the changed pairs, and what the sentences get right.

    `predictions` as cluster.evaluation.predict.predict makes them. In percent; None where there is nothing to compute
    from.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.rouge.rouge import Rouge

    pairs = [prediction for prediction in predictions if prediction["references"]]
    scores: dict[str, float | None] = {"CIDEr": None, "CIDEr_changed": None, "ROUGE_L": None, "BLEU-4": None}
    references = {str(i): [spaced(text) for text in pair["references"]] for i, pair in enumerate(pairs)}
    said = {str(i): [spaced(pair["caption"]) or "nothing"] for i, pair in enumerate(pairs)}
    changed = [str(i) for i, pair in enumerate(pairs) if change_of(pair)]
    for name, keys in (("CIDEr", list(said)), ("CIDEr_changed", changed)):
        if len(keys) > 1:  # with one pair, every word is in all documents and CIDEr is 0 whatever is said
            scores[name] = cider({key: references[key] for key in keys}, {key: said[key][0] for key in keys})
    if len(pairs) > 1:
        scores["ROUGE_L"] = 100 * float(Rouge().compute_score(references, said)[0])
        scores["BLEU-4"] = 100 * float(Bleu(4).compute_score(references, said, verbose=0)[0][3])
    found = accuracies(pairs, [pair.get("truth") for pair in pairs])
    scores |= {name: found[name] for name in ACCURACIES}
    return {name: None if value is None else round(float(value), 4) for name, value in scores.items()}
