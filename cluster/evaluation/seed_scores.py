"""Mean and spread of the scores of several training seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.evaluation.protocol import SETS, comparable
from cluster.evaluation.scores import ACCURACIES
from idc.metrics.coco import METRICS

# Rows of the tables for people; seeds.json has all metrics. (section, name, label, digits)
SHOWN = (
    ("total", "CIDEr", "CIDEr, all pairs", 1),
    ("changed", "CIDEr", "CIDEr, changed", 1),
    ("unchanged", "CIDEr", "CIDEr, unchanged", 1),
    ("skill", "total", "skill, all pairs", 2),
    ("skill", "changed", "skill, changed", 2),
    ("accuracy", "changed", "says change, %", 1),
    ("accuracy", "unchanged", "says none, %", 1),
    ("accuracy", "type", "right kind, %", 1),
    ("accuracy", "object", "right object too, %", 1),
    ("where", "pointing_game", "looks at the change, %", 1),
)


def summarize(scores: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Of scores.json by seed, two or more: {"seeds", "figures", "n", "protocol", "code"}.

    figures: section -> name -> {"mean", "std", "values": seed -> value}. std is the standard deviation with n - 1.
    Where a seed has no value, mean and std are None and "reason" says whose. code: by seed, for seeds may have been
    scored by different code; the protocol is that of all, without it.
    """
    first = next(iter(scores.values()))
    figures: dict[str, dict[str, Any]] = {}
    for section, name in _names():
        values = {str(seed): one[section].get(name) for seed, one in scores.items()}
        figures.setdefault(section, {})[name] = _spread(values, first[section].get("reasons", {}).get(name, ""))
    return {
        "seeds": list(scores),
        "figures": figures,
        "n": first["n"],
        "protocol": comparable(first["protocol"]),
        "code": {str(seed): one["protocol"]["code"] for seed, one in scores.items()},
    }


def _names() -> Iterator[tuple[str, str]]:
    yield from ((half, metric) for half in SETS for metric in METRICS)
    yield from (("skill", half) for half in SETS[:2])
    yield from (("accuracy", name) for name in ACCURACIES)
    yield from (("where", name) for name in ("pointing_game", "iou"))


def _spread(values: Mapping[str, float | None], reason: str) -> dict[str, Any]:
    lacking = [seed for seed, value in values.items() if value is None]
    if lacking:
        why = f"seed {', '.join(lacking)} has no value{f': {reason}' if reason else ''}"
        return {"mean": None, "std": None, "values": dict(values), "reason": why}
    known = [value for value in values.values() if value is not None]
    return {"mean": statistics.mean(known), "std": statistics.stdev(known), "values": dict(values)}


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """For people: [label, "mean ± std", value of each seed...]; a dash where there is none."""

    def text(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    made = []
    for section, name, label, digits in SHOWN:
        one = found["figures"][section][name]
        whole = text(one["mean"], digits) + ("" if one["std"] is None else f" ± {text(one['std'], digits)}")
        made.append([label, whole, *(text(value, digits) for value in one["values"].values())])
    return made


def head(found: Mapping[str, Any]) -> list[str]:
    """Over the columns of `rows`."""
    return ["", "mean ± std", *(f"seed {seed}" for seed in found["seeds"])]


def differing_code(found: Mapping[str, Any]) -> str:
    """A sentence where the seeds were scored by different code, else nothing."""
    if len({code["sha256"] for code in found["code"].values()}) == 1:
        return ""
    said = ", ".join(f"seed {seed} {(code['commit'] or code['sha256'])[:12]}" for seed, code in found["code"].items())
    return f"Scored by different code: {said}."


def text_table(found: Mapping[str, Any]) -> str:
    """The rows as lines of text."""
    lines = [head(found), *rows(found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        line[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    return "\n".join([*shown, *filter(None, [differing_code(found)])])
