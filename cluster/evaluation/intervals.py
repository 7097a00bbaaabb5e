"""How sure the figures of scores.json are: 95 % intervals of metrics, of skill and of the accuracies, over pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.evaluation.protocol import SETS
from idc.metrics.bootstrap import LEVEL, RESAMPLES, SEED, all_alike, interval, resampled_means
from idc.metrics.draws import drawn_figures

HOW = (
    "percentiles of the bootstrap over pairs; CIDEr of each pair with the document frequencies of all scored pairs (of "
    "a half: of that half) and the constant caption kept as they are; BLEU-4 of the counts of the drawn pairs; a share "
    "that all or none of the pairs have: exact binomial interval; one model, so the luck of its training seed is not "
    "in it"
)
_ALIKE = "every resample gives the same figure"


def intervals(
    right: Mapping[str, Sequence[bool | None]],
    places: Mapping[str, Sequence[int]],
    each: Mapping[str, np.ndarray],
    scored: Mapping[str, Any],
    tokens: Mapping[str, tuple[Sequence[Sequence[str]], Sequence[str]]],
) -> dict[str, Any]:
    """{"CIDEr", "BLEU-4", "ROUGE_L", "skill", "accuracy"}: of each figure's name [low, high], or None with a reason.

    right: accuracy -> of every pair whether it is right, None where it does not count. places: half -> which pairs are
    in it. each: a set of `cluster.scores` ("total", "constant changed", ...) -> the CIDEr of its pairs. scored: what
    scores.json says of them, with its reasons: what is None there is None here. tokens: half -> (references, captions)
    of its pairs, tokenized. "how" says how they are made.
    """
    count = len(next(iter(right.values())))
    columns = {
        f"says {name}": np.array([np.nan if one is None else 100.0 * one for one in ones])
        for name, ones in right.items()
    }
    for name, values in each.items():
        columns[name] = np.full(count, np.nan)
        columns[name][list(places[name.split()[-1]])] = values
    draws = dict(zip(columns, resampled_means(np.stack(list(columns.values()), 1)).T, strict=True)) if count else {}

    def section(names: Sequence[str], of: Mapping[str, Any], make) -> dict[str, Any]:
        found: dict[str, Any] = {}
        reasons = {}
        for name in names:
            if of[name] is None:
                found[name], reasons[name] = None, of.get("reasons", {}).get(name, "not known")
            else:
                found[name], reason = make(name)
                if found[name] is None:
                    reasons[name] = reason
        return found | ({"reasons": reasons} if reasons else {})

    drawn = {half: drawn_figures(*tokens[half]) for half in SETS if tokens[half][0]}

    def metric(name: str) -> dict[str, Any]:
        return section(SETS, _halves(scored, name), lambda half: (interval(drawn[half][name].draws), _ALIKE))

    def cider(half: str) -> tuple[list[float] | None, str]:
        return interval(draws[half]), _ALIKE

    def skill(half: str) -> tuple[list[float] | None, str]:
        own, constant, oracle = (draws[name] for name in (half, f"constant {half}", f"oracle {half}"))
        none = int((oracle <= constant).sum())
        if none:
            return None, f"in {none} of {RESAMPLES} resamples the oracle is no better than the constant caption"
        return interval((own - constant) / (oracle - constant)), _ALIKE

    def accuracy(name: str) -> tuple[list[float] | None, str]:
        if name == "balanced":
            return interval((draws["says changed"] + draws["says unchanged"]) / 2), _ALIKE
        value = scored["accuracy"][name]
        if value in (0, 100):
            return all_alike(value, scored["accuracy"]["n"][name]), ""
        return interval(draws[f"says {name}"]), _ALIKE

    accuracies = [name for name in scored["accuracy"] if name not in ("n", "reasons")]
    return {
        "CIDEr": section(SETS, _halves(scored, "CIDEr"), cider),
        **{name: metric(name) for name in ("BLEU-4", "ROUGE_L")},
        "skill": section(SETS[:2], scored["skill"], skill),
        "accuracy": section(accuracies, scored["accuracy"], accuracy),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": SEED,
        "how": HOW,
    }


def _halves(scored: Mapping[str, Any], name: str) -> dict[str, Any]:
    reasons = {half: scored[half].get("reasons", {}).get(name, "") for half in SETS}
    return {half: scored[half][name] for half in SETS} | {"reasons": reasons}
