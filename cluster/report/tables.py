"""The tables of a report: metrics of the model and of what it is compared with, and what its sentences get right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from cluster.evaluation.protocol import MEAN_OF_FOUR
from cluster.evaluation.scores import can_judge, truth_of
from cluster.report.gallery import Shown
from cluster.report.page import data_table, number
from idc.metrics.coco import METRICS
from shards.wording.claims import is_known

KIND_NAMES = {
    "color": "color",
    "material": "material",
    "add": "something added",
    "drop": "something removed",
    "move": "something moved",
    "none": "unchanged",
    "": "all",
}
ACCURACY_NAMES = {
    "changed": "says that something changed",
    "unchanged": "says that nothing did",
    "balanced": "mean of these two",
    "type": "the right kind of change",
    "object": "the right object too",
}


def kind_name(kind: str) -> str:
    """A change type as a heading says it."""
    return KIND_NAMES.get(kind, kind)


def score_table(scores: Mapping[str, Any]) -> str:
    """All metrics: the model in halves and by type, then the baselines and the oracle."""
    count = scores["n"]
    metrics = [name for name in (*METRICS, MEAN_OF_FOUR) if name in scores["total"]]
    row = partial(_row, metrics)
    rows = [
        row("all pairs", scores["total"], count["total"], "main"),
        row("changed", scores["changed"], count["changed"], "main"),
    ]
    rows += [row(kind_name(kind), values, count["by_type"][kind], "part") for kind, values in scores["by_type"].items()]
    rows.append(row("unchanged", scores["unchanged"], count["unchanged"], "main"))
    baselines = scores["baselines"]
    for half, pairs in (("total", count["total"]), ("changed", count["changed"])):
        said = baselines[f"constant_{half}"].get("caption")
        label = f"always “{said}”" if said else "best constant caption"
        rows.append(row(f"{label}, {_half(half)}", baselines[f"constant_{half}"], pairs, "base"))
    shuffled = baselines["shuffled_images"]
    rows.append(row("the model’s captions of other pairs, all pairs", shuffled, count["total"], "base"))
    if "changed" in shuffled:
        rows.append(row("the model’s captions of other pairs, changed", shuffled["changed"], count["changed"], "base"))
    if scores["oracle"]:
        rows.append(row("oracle: the truth in fixed words, all pairs", scores["oracle"], count["total"], "base"))
        if "changed" in scores["oracle"]:
            values = scores["oracle"]["changed"]
            rows.append(row("oracle: the truth in fixed words, changed", values, count["changed"], "base"))
    head = "".join(f"<th>{name.replace('_', '-')}</th>" for name in metrics)
    return data_table(f"<th></th><th>pairs</th>{head}", rows)


def accuracy_table(shown: Sequence[Shown]) -> str:
    """By type: how often a sentence says that something changed, the right kind of change, and the right object."""
    kinds = sorted({one.kind for one in shown if one.kind}, key=lambda kind: (kind == "none", kind))
    rows = []
    for kind in kinds:
        group = [one for one in shown if one.kind == kind]
        right = _share(group, {"right"})
        if kind == "none":
            cells = [_bar(right), "", ""]
        else:
            judged = [one for one in group if can_judge(one.prediction) and is_known(truth_of(one.prediction))]
            cells = [
                _bar(_share(group, {"right", "partly", "wrong", None})),
                _bar(_share(judged, {"right", "partly"}), len(judged), len(group)),
                _bar(_share(judged, {"right"}), len(judged), len(group)),
            ]
        name = kind_name(kind)
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{len(group)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    if not rows:
        return ""
    head = "<th></th><th>pairs</th><th>says rightly whether it changed</th><th>right kind</th><th>right object too</th>"
    return data_table(head, rows)


def named_table(scores: Mapping[str, Any]) -> str:
    """Of the sentences with the right kind of change that name an attribute, how many name it right; "" for none."""
    found = scores.get("accuracy_by", {})  # a scores.json of an earlier version has none
    rows = [
        f"<tr><td>{escape(label)}</td><td>{row['n']}</td><td>{_bar(row['right'])}</td></tr>"
        for part, of in (("attribute", ""), ("place", ", place"))
        for label, row in ((name + of, row) for name, row in found.get(part, {}).items())
    ]
    return data_table("<th></th><th>sentences</th><th>named right</th>", rows) if rows else ""


def interval_table(scores: Mapping[str, Any]) -> str:
    """CIDEr, skill and accuracies with how far chance may have moved them; of how many pairs each is."""
    found, rows = scores["intervals"], []
    counts = scores["n"]

    def row(label: str, value: float | None, section: Mapping[str, Any], name: str, count: int, digits: int) -> None:
        ends, why = section[name], section.get("reasons", {}).get(name, "")
        text = number(None, why) if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
        cells = (escape(label), str(count), number(value, why, digits), text)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")

    for half in ("total", "changed", "unchanged"):
        row(f"CIDEr, {_half(half)}", scores[half]["CIDEr"], found["CIDEr"], half, counts[half], 1)
    for half in ("total", "changed"):
        row(f"skill, {_half(half)}", scores["skill"][half], found["skill"], half, counts[half], 2)
    for name, said in ACCURACY_NAMES.items():
        row(f"{said}, %", scores["accuracy"][name], found["accuracy"], name, scores["accuracy"]["n"][name], 1)
    return data_table("<th></th><th>pairs</th><th>figure</th><th>interval</th>", rows)


def protocol_table(scores: Mapping[str, Any]) -> str:
    """What the figures are of: data, references, how captions were made and chosen, which code."""
    found = scores["protocol"]
    data, pairs, references, decoding = (found[name] for name in ("data", "pairs", "references", "decoding"))
    code, rule = found["code"], found["selection"]
    if rule["rule"] == "best":
        on = f"first {rule['pairs']} pairs of the" if rule["pairs"] else "whole"
        chosen = f"highest {rule['metric']} of {rule['stage']} on the {on} {rule['split']} split"
    else:
        chosen = f"last of {rule['stage']}" if rule["rule"] else rule["reason"]
    commit = f"commit {code['commit'][:12]}{' with local changes' if code['dirty'] else ''}" if code["commit"] else ""
    packed = f"; packed with {references['packed_with']}" if "packed_with" in references else ""
    number_of = f"{references['min']} to {references['max']} a pair, {number(references['mean'])} on average"
    facts = {
        "protocol": found.get("name") or "none that has a name",  # a scores.json of an earlier version has none
        "scale": found["scale"],
        "data": f"{data['name']}, {found['split']} split: {pairs['scored']:,} of its {pairs['in_split']:,} pairs",
        "manifest of the data": f"sha256 {data['manifest_sha256'][:16]}",
        "references": f"{number_of}; {references['merge']}{packed}" if references["max"] else "none",
        "words": found["tokenizer"],
        "metrics": found["metrics"],
        "decoding": f"beam {decoding['beam']}, length penalty {decoding['length_penalty']:g}, "
        f"at most {decoding['max_length']} tokens",
        "checkpoint": chosen,
        "code": " · ".join(filter(None, (commit, code["version"] and f"version {code['version']}")))
        + f" · sha256 {code['sha256'][:16]}",
    }
    rows = [f'<tr><td>{name}</td><td class="text">{escape(text)}</td></tr>' for name, text in facts.items()]
    return data_table("", rows)


def _row(metrics: Sequence[str], label: str, values: Mapping[str, Any], count: int, kind: str) -> str:
    reasons = values.get("reasons", {})
    cells = "".join(f"<td>{number(values.get(name), reasons.get(name, ''))}</td>" for name in metrics)
    text = ' class="text"' if kind == "base" else ""
    return f'<tr class="{kind}"><td{text}>{escape(label)}</td><td>{count}</td>{cells}</tr>'


def _half(half: str) -> str:
    return "all pairs" if half == "total" else half


def _share(group: Sequence[Shown], verdicts: set[str | None]) -> float | None:
    return 100 * sum(one.verdict in verdicts for one in group) / len(group) if group else None


def _bar(percent: float | None, count: int = 0, of: int = 0) -> str:
    """A share as a bar; of how many pairs, where that is not all of them."""
    if percent is None:
        return number(None, "the references of this kind of change, or what changed, cannot be read")
    some = f" of {count}" if count != of else ""
    return f'<span class="bar"><i style="width:{percent:.0f}%"></i></span>{percent:.0f} %{some}'
