"""Two methods on the same pairs: how far their figures differ, and whether chance alone could do that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.evaluation.scores import ACCURACIES, change_of, right_of, truth_of
from idc.metrics.bootstrap import LEVEL, RESAMPLES, SEED, paired_difference, resampled_means
from idc.metrics.cider import NO_WEIGHTS
from idc.metrics.coco import NOTHING_SAID, tokenize
from idc.metrics.draws import drawn_figures

HOW = (
    "paired bootstrap over pairs: both methods in the same draws; CIDEr of a pair with the document frequencies of all "
    "pairs of its set kept as they are; p: two-sided, of no difference, not corrected for several figures; pairs that "
    "share an image count as two; one run of each method, so the luck of training seeds is not in it"
)
_METEOR = "its figure of a set is no mean over pairs, and a draw would take a start of Java"


def against(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], tokenizer: str) -> dict[str, Any]:
    """{"sets": set -> figure -> {"difference", "interval", "p", "better", "worse", "equal"}, "accuracy", ...}.

    ours, theirs: predictions for the same pairs in the same order, with captions. A difference is ours minus theirs, in
    percent; better and worse count the pairs in which ours is. "n": pairs of each set. What cannot be computed is None
    with its reason.
    """
    both = [(one, other) for one, other in zip(ours, theirs, strict=True) if one["references"]]
    pairs = [one for one, _ in both]
    said = [[one["caption"] for one in side] for side in zip(*both, strict=True)]
    texts = sorted({*said[0], *said[1], *(text for pair in pairs for text in pair["references"])})
    tokens = tokenize(texts, tokenizer)
    token = dict(zip(texts, tokens.texts, strict=True))
    references = [[token[text] for text in pair["references"] if token[text]] for pair in pairs]
    captions = [[token[text] or NOTHING_SAID for text in side] for side in said]

    places = {"total": list(range(len(pairs)))}
    places |= {
        half: [i for i, pair in enumerate(pairs) if change_of(pair) is is_changed]
        for half, is_changed in (("changed", True), ("unchanged", False))
    }
    sets, counts = {}, {}
    for name, of in places.items():
        if of:
            counts[name] = len(of)
            sets[name] = _metrics([references[i] for i in of], [[side[i] for i in of] for side in captions])
    truths = [truth_of(pair) for pair in pairs]
    right = [right_of(side, truths) for side in zip(*both, strict=True)]
    return {
        "sets": sets,
        "accuracy": _accuracies(right),
        "n": counts,
        "same_caption": sum(one == other for one, other in zip(*said, strict=True)),
        "tokenizer": tokens.tokenizer,
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": SEED,
        "how": HOW,
    }


def _metrics(references: Sequence[Sequence[str]], captions: Sequence[Sequence[str]]) -> dict[str, Any]:
    """BLEU-4, ROUGE_L and CIDEr of one set of pairs."""
    ours, theirs = (drawn_figures(references, side) for side in captions)
    found = {
        name: _figure(one.value - theirs[name].value, one.draws - theirs[name].draws, (one.each, theirs[name].each))
        for name, one in ours.items()
    }
    if "CIDEr" not in found:
        found["CIDEr"] = _nothing("needs two pairs or more" if len(references) < 2 else NO_WEIGHTS)
    return found | {"METEOR": _nothing(_METEOR)}


def _accuracies(right: Sequence[Mapping[str, Sequence[bool | None]]]) -> dict[str, Any]:
    """Of each accuracy, over the pairs that count for it; they are the same for both methods."""
    found = {}
    for name in ACCURACIES:
        if name == "balanced":
            continue
        values = [np.array([np.nan if one is None else 100.0 * one for one in side[name]]) for side in right]
        counted = ~np.isnan(values[0])
        if not counted.any():
            found[name] = _nothing("no pairs of which it is known")
        else:
            found[name] = _of_means([side[counted] for side in values]) | {"n": int(counted.sum())}
    return found


def _of_means(values: Sequence[np.ndarray]) -> dict[str, Any]:
    draws = resampled_means(np.stack(values, 1))
    return _figure(float(values[0].mean() - values[1].mean()), draws[:, 0] - draws[:, 1], values)


def _figure(difference: float, draws: np.ndarray, each: Sequence[np.ndarray]) -> dict[str, Any]:
    apart = np.where(np.isclose(each[0], each[1], rtol=1e-9, atol=1e-9), 0.0, each[0] - each[1])
    found = {"difference": difference, **paired_difference(draws)}
    found |= {"better": int((apart > 0).sum()), "worse": int((apart < 0).sum()), "equal": int((apart == 0).sum())}
    return found | ({"reason": "every draw gives the same difference"} if found["p"] is None else {})


def _nothing(reason: str) -> dict[str, Any]:
    return dict.fromkeys(("difference", "interval", "p")) | {"reason": reason}
