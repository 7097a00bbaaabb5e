"""report.html: a run in one file that needs no network: scores and how to read them, curves, and a gallery of pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cluster.evaluation.predict import read_predictions, with_denials
from cluster.report.charts import line_chart, skill_scale
from cluster.report.curves import curves, stage_title
from cluster.report.gallery import Pictures, Shown, card, drawn, example, extremes, judge, strangest
from cluster.report.page import facts, number, page, tiles
from cluster.report.tables import accuracy_table, interval_table, kind_name, named_table, protocol_table, score_table
from cluster.report.trust import confusion_table, familiarity_table, reliability_chart, reliability_note
from cluster.tracking.run_log import PROVENANCE, alignment_line, read_metrics
from idc.backbone.canvas import Canvas
from shards.errors import DataError
from shards.format.whole_files import write_whole
from shards.reading.reader import Folder

READING = (
    "CIDEr alone misleads: one sentence said of every pair scores high on it. Skill puts the model between the best "
    "such sentence (0) and an oracle that says the truth in fixed words (1), on the same references. The accuracies "
    "ask what a sentence claims, whatever its wording."
)


def write_report(run: Path, results: Path, shards: Folder, canvas: Canvas, split: str) -> Path:
    """Writes results/report.html from results/scores.json and predictions.jsonl; returns its path.

    run: the run folder, for its curves and provenance. results: the same folder, or another in which another data set
    was evaluated. shards: the images, of which `split` was captioned. canvas: what the maps of the predictions cover.
    Raises DataError where a file is missing.
    """
    try:
        scores = json.loads((results / "scores.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{results / 'scores.json'} cannot be read ({error}); run --stage evaluate first") from None
    shown = judge(with_denials(read_predictions(results / "predictions.jsonl"), shards))
    pictures = Pictures(shards.stream("pair", split), canvas, scores.get("where", {}).get("threshold"))
    metrics = read_metrics(run)
    body = "".join(
        (
            _head(run, results, shards, split, scores),
            _top(scores, shown, pictures),
            _scores(scores, shown),
            _trust(scores, shown),
            _curves(metrics, scores),
            _gallery(shown, pictures, scores),
            _about(run, scores),
        )
    )
    path = results / "report.html"
    write_whole(path, page(f"{run.name}: what changed?", body))
    return path


def _head(run: Path, results: Path, shards: Folder, split: str, scores: Mapping[str, Any]) -> str:
    count = scores["n"]
    on = f"{count['total']} pairs of the {split} split of {shards.path.name}"
    halves = (
        f", {count['changed']} changed and {count['unchanged']} not" if count["changed"] + count["unchanged"] else ""
    )
    source = "" if run == results else f" The model was trained in the run {escape(run.name)}."
    lead = f"One sentence for each of {escape(on)}{halves}.{source}"
    return f"<h1>{escape(results.name)}: what changed?</h1><p class='lead'>{lead}</p>"


def _top(scores: Mapping[str, Any], shown: Sequence[Shown], pictures: Pictures) -> str:
    accuracy, skill = scores["accuracy"], scores["skill"]
    why, lacking = skill.get("reasons", {}), accuracy.get("reasons", {})
    figures = [
        (number(skill["total"], why.get("total", ""), 2), "skill, all pairs (0 constant, 1 oracle)"),
        (number(skill["changed"], why.get("changed", ""), 2), "skill, changed pairs"),
    ]
    if skill["total"] is None and skill["changed"] is None:  # the truth in fixed words is known of few data sets
        figures = [
            (number(scores[half]["CIDEr"], scores[half].get("reasons", {}).get("CIDEr", "")), f"CIDEr, {said} pairs")
            for half, said in (("total", "all"), ("changed", "changed"))
        ]
    for name, pairs, said in (
        ("changed", "changed pairs", "says that something changed"),
        ("unchanged", "unchanged pairs", "says that nothing did"),
        ("type", "changed pairs", "the right kind of change"),
        ("object", "changed pairs", "the right object too"),
    ):
        count = accuracy.get("n", {}).get(name)  # a scores.json of an earlier version has none
        figures.append(
            (_percent(accuracy[name], lacking.get(name, "")), f"of {f'{count} ' if count else ''}{pairs}: {said}")
        )
    where = scores.get("where", {})
    if where.get("pointing_game") is not None:
        figures += [
            (_percent(where["pointing_game"], ""), f"of {where['n']} changed pairs: looks at the changed object"),
            (_percent(where["iou"], ""), "overlap of the outlines with its pixels (IoU)"),
        ]
    one = example(shown)
    return f'<div class="top">{card(one, pictures, large=True) if one else ""}{tiles(figures)}</div>'


def _scores(scores: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    parts = [f"<h2>Scores</h2><p class='note'>{READING}</p>"]
    for half, title in (("total", "CIDEr, all pairs"), ("changed", "CIDEr, changed pairs")):
        oracle = scores["oracle"] and (scores["oracle"] if half == "total" else scores["oracle"].get("changed"))
        shuffled = scores["baselines"]["shuffled_images"]
        shuffled = shuffled if half == "total" else shuffled.get("changed", {})
        values = [scores[half]["CIDEr"], scores["baselines"][f"constant_{half}"]["CIDEr"], (oracle or {}).get("CIDEr")]
        if None not in values:
            marks = [("model", values[0], "model")]
            if shuffled.get("CIDEr") is not None:
                marks.append(("captions of other pairs", shuffled["CIDEr"], "plain"))
            parts.append(skill_scale(title, values[1], values[2], marks))
    parts.append(
        f"<h3>By kind of change</h3>{accuracy_table(shown)}<h3>All metrics, in percent</h3>{score_table(scores)}"
    )
    if named := named_table(scores):
        parts.append(f"<h3>What sentences name, if the kind of change is right</h3>{named}")
    if why := scores.get("reasons", {}).get("tokenizer"):
        parts.append(f"<p class='note'>Tokens of the metrics: {escape(why)}.</p>")
    if scores.get("reasons", {}).get("oracle"):
        parts.append(f"<p class='note'>No oracle: {escape(scores['reasons']['oracle'])}.</p>")
    if "intervals" in scores:  # a scores.json of an earlier version has neither these nor the protocol
        found = scores["intervals"]
        note = f"{found['level']:g} % intervals: {found['how']}; {found['resamples']:,} resamples."
        parts.append(f"<h3>How sure the figures are</h3>{interval_table(scores)}<p class='note'>{escape(note)}</p>")
    if "protocol" in scores:
        parts.append(f"<h3>Protocol</h3>{protocol_table(scores)}")
    return "".join(parts)


def _trust(scores: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """What is taken for what, and how sure the model may be; nothing of data that say neither."""
    parts = []
    if confused := confusion_table(shown):
        note = "Down: what changed. Across: what the sentences say. Shades go by the share of a row."
        parts.append(f"<h3>What is taken for what</h3>{confused}<p class='note'>{note}</p>")
    calibration = scores.get("calibration", {})  # a scores.json of an earlier version has none
    if chart := reliability_chart(calibration):
        note = f"<p class='note'>{escape(reliability_note(calibration))}</p>"
        parts.append(f"<h3>How sure it may be</h3><div class='charts beside'>{chart}{note}</div>")
    if familiar := familiarity_table(shown):
        note = "A pair is unlike the training pairs if its unfamiliarity is above 1, as 1 in 100 validation pairs' is."
        parts.append(f"<h3>Familiar and not</h3>{familiar}<p class='note'>{note}</p>")
    return f"<h2>How far to trust it</h2>{''.join(parts)}" if parts else ""


def _curves(metrics: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> str:
    """Per stage: each loss of each task, validation scores with the chosen step ringed, and the learning rate."""
    parts = []
    for stage, found in curves(metrics).items():
        chosen = _chosen_step(stage, scores)
        charts = [line_chart(f"validation {name}", points, mark=chosen) for name, points in found.validation.items()]
        charts += [line_chart(f"{name} loss", points, smooth=True) for name, points in sorted(found.losses.items())]
        charts += [
            line_chart("learning rate", found.rates),
            line_chart("samples a second", found.speeds, smooth=True, from_zero=True),
        ]
        told = [
            alignment_line(record["alignment"])
            for record in metrics
            if record["stage"] == stage and "alignment" in record
        ]
        said = "".join(f"<p class='note'>{escape(line[0].upper() + line[1:])}.</p>" for line in told)
        parts.append(f'<h3>{escape(stage_title(stage))}</h3>{said}<div class="charts">{"".join(charts)}</div>')
    note = (
        "Pale: as logged; strong: running mean. A ring marks the checkpoint that was kept; the test split has no say "
        "in which."
    )
    return f"<h2>Curves</h2><p class='note'>{note}</p>{''.join(parts)}" if parts else ""


def _gallery(shown: Sequence[Shown], pictures: Pictures, scores: Mapping[str, Any]) -> str:
    if not shown:
        return ""
    kinds, strange = extremes(shown), strangest(shown)
    buttons = [
        ("", "all"),
        ("right", "right"),
        ("not", "not right"),
        *([("far", "unfamiliar")] if strange else []),
        *((kind, kind_name(kind)) for kind in kinds if kind),
    ]
    bar = "".join(
        f'<button data-show="{escape(show)}" aria-pressed="{"false" if show else "true"}">{escape(label)}</button>'
        for show, label in buttons
    )
    sections = [_section("Drawn at random", drawn(shown, scores.get("seed", 0)), pictures)]
    sections.append(_section("Least like the training pairs", strange, pictures))
    for kind, (best, worst) in kinds.items():
        name = kind_name(kind).capitalize()
        sections += [
            _section(f"{name}: best by CIDEr", best, pictures),
            _section(f"{name}: worst by CIDEr", worst, pictures),
        ]
    note = (
        "Bold: what the model said; below it: the references. Outlined: what the sentence is about. Click a pair to "
        "switch its images, and its corner to enlarge them."
    )
    head = f'<h2>Gallery</h2><p class="note">{note}</p><div class="filter">{bar}</div>'
    return f'{head}<div id="gallery">{"".join(sections)}</div>'


def _section(title: str, shown: Sequence[Shown], pictures: Pictures) -> str:
    cards = "".join(card(one, pictures) for one in shown)
    return f'<section><h3>{escape(title)}</h3><div class="cards">{cards}</div></section>' if shown else ""


def _about(run: Path, scores: Mapping[str, Any]) -> str:
    """Where the numbers come from: checkpoint, seed, command, commit, configuration."""
    known = {
        "checkpoint": scores.get("checkpoint") or "–",
        "seed": scores.get("seed"),
    }
    entry = _last_provenance(run / PROVENANCE)
    git = entry.get("git") or {}
    packages = entry.get("packages") or {}
    known |= {
        "command": " ".join(map(str, entry.get("command", []))),
        "commit": f"{git['sha'][:12]}{' with local changes' if git.get('diff') or git.get('status') else ''}"
        if git
        else "",
        "host": " · ".join(str(entry[name]) for name in ("host", "platform", "cpus") if name in entry),
        "time": entry.get("time", ""),
        "goodput": _goodput(scores),
        "packages": ", ".join(
            f"{name} {packages[name]}" for name in ("torch", "deepspeed", "ray", "timm") if name in packages
        ),
    }
    config = run / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    shown = f"<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>" if text else ""
    return f"<h2>This run</h2>{facts(known)}{shown}"


def _goodput(scores: Mapping[str, Any]) -> str:
    """Of the run's training, in words; empty in a scores.json of an earlier version."""
    if scores.get("goodput") is None:
        return scores.get("reasons", {}).get("goodput", "")
    return f"{scores['goodput']:.0%} of the time from the first command to the last step went into steps that count"


def _percent(value: float | None, reason: str) -> str:
    return number(value, reason, 0) + (" %" if value is not None else "")


def _chosen_step(stage: str, scores: Mapping[str, Any]) -> float | None:
    """The step of the scored checkpoint, if it is of this stage: "checkpoints/finetune/step_00000600"."""
    parts = Path(scores.get("checkpoint") or "").parts
    return float(parts[-1].removeprefix("step_")) if len(parts) >= 2 and parts[-2] == stage else None


def _last_provenance(path: Path) -> dict[str, Any]:
    """The entry of the newest command that was given for the run."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    last = entries[-1] if isinstance(entries, list) and entries else entries
    return last if isinstance(last, dict) else {}
