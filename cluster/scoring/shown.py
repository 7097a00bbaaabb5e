"""What `cluster.score` prints: a short table for people; the file has everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.evaluation.protocol import NAMED

_SIGNIFICANT = 0.05


def shown(found: Mapping[str, Any]) -> str:
    """Figures of each set, accuracies, skill, intervals, what is null and why, and the comparison if there is one."""
    name = found["protocol"]["asked"]
    row, count = NAMED[name], found["n"]
    sets = [(subset, found[subset], count[subset]) for subset in row.subsets if subset != "by_type"]
    if "by_type" in row.subsets:
        sets[2:2] = [(f"  {kind}", values, count["by_type"][kind]) for kind, values in found["by_type"].items()]
    sets = [one for one in sets if one[2]]
    lines = [["", "pairs", *row.metrics]]
    lines += [[label, str(n), *(_number(values[metric]) for metric in row.metrics)] for label, values, n in sets]
    parts = [f"protocol {name}, {found['protocol']['data']['name']} {found['protocol']['split']}", table(lines)]
    ends = {name: found["intervals"][name]["total"] for name in ("BLEU-4", "ROUGE_L", "CIDEr")}
    known = [f"{name} {_range(one)}" for name, one in ends.items() if one is not None]
    if known:
        parts.append(f"all pairs, 95 % (bootstrap over pairs): {', '.join(known)}")
    accuracy, skill = found["accuracy"], found["skill"]
    known = [f"{name} {accuracy[name]:.1f} % of {accuracy['n'][name]}"
             for name in ("changed", "unchanged", "type", "object") if accuracy[name] is not None]  # fmt: skip
    if known:
        parts.append(f"says rightly: {', '.join(known)}")
    if skill["total"] is not None:
        parts.append(f"skill {skill['total']:.2f} (0: the best fixed sentence, 1: the truth in fixed words)")
    extras = [f"{name} {_number(value)}" for name, value in found["extras"].items() if isinstance(value, float)]
    parts += [", ".join(extras)] if extras else []
    parts += [f"null: {name}: {why}" for name, why in _nulls(found, sets, row.metrics).items()]
    if "against" in found:
        parts.append(_against(found["against"]))
    return "\n".join(parts)


def _nulls(
    found: Mapping[str, Any], sets: Sequence[tuple[str, Mapping[str, Any], int]], metrics: Sequence[str]
) -> dict[str, str]:
    """Figures that are "-" in the table, and why; of a part only if that is news. Not: extras nobody asked for."""
    extras = found["extras"]
    nulls: dict[str, str] = {}
    for label, values, _ in sets:
        for name in metrics:
            why = values.get("reasons", {}).get(name)
            if values[name] is None and why and (label == "total" or why not in nulls.values()):
                nulls[name if label == "total" else f"{name}, {label.strip()}"] = why
    nulls |= {name: why for name, why in extras.get("reasons", {}).items() if not why.startswith("not asked")}
    if "tokenizer" in found.get("reasons", {}):
        nulls["the protocol's tokens"] = found["reasons"]["tokenizer"]
    return nulls


def _against(found: Mapping[str, Any]) -> str:
    names = ", ".join(one["name"] for one in found["files"])
    lines = [["", "pairs", "difference", "95 %", "p", "better", "worse", "equal"]]
    for subset, figures in found["sets"].items():
        for name in ("BLEU-4", "ROUGE_L", "CIDEr"):
            lines.append([f"{name}, {subset}", str(found["n"][subset]), *_cells(figures[name])])
    for name, figure in found["accuracy"].items():
        if figure["difference"] is not None:
            lines.append([f"right: {name}", str(figure["n"]), *_cells(figure)])
    note = f"paired bootstrap, {found['resamples']} draws; * p < {_SIGNIFICANT}; one run of each method"
    return f"\ndifference to {names} ({found['same_caption']} captions are the same)\n{table(lines)}\n{note}"


def _cells(figure: Mapping[str, Any]) -> list[str]:
    if figure["difference"] is None:
        return ["-"] * 6
    sure = figure["p"] is not None and figure["p"] < _SIGNIFICANT
    p = "-" if figure["p"] is None else f"{figure['p']:.3f}{'*' if sure else ' '}"
    ends = "-" if figure["interval"] is None else _range(figure["interval"])
    return [f"{figure['difference']:+.1f}", ends, p, *(str(figure[name]) for name in ("better", "worse", "equal"))]


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:.1f} to {ends[1]:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first column to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip
