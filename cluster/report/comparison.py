"""A page that puts methods side by side: scores with spread, differences pair by pair, curves, captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cluster.evaluation.protocol import NAMED
from cluster.report.curves import Curves, curves, stage_title
from cluster.report.gallery import VERDICTS, Shown, drawn, judge, thumbnail
from cluster.report.overlays import STYLE, legend, name, overlaid, strips
from cluster.report.page import data_table, facts, number, page
from cluster.report.tables import kind_name
from cluster.scoring.paired import HOW, against
from cluster.scoring.runs import Method, differing_options, rows
from cluster.tracking.run_log import read_metrics
from shards.reading.reader import Folder, Stream

APART = 12  # pairs on which the methods differ most
REFERENCES = 2  # shown of each pair; the others are in a tooltip
STRIPS = (("total", "CIDEr", "CIDEr, all pairs"), ("changed", "CIDEr", "CIDEr, changed pairs"),
          ("skill", "total", "skill, all pairs"), ("accuracy", "changed", "says change, %"),
          ("accuracy", "unchanged", "says none, %"), ("accuracy", "object", "right object too, %"))  # fmt: skip
FIGURES = ("BLEU-4", "ROUGE_L", "CIDEr")
OWN_STYLE = (
    STYLE
    + """
.said-by { display: grid; grid-template-columns: minmax(0, 1fr); gap: 8px; margin: 10px 0 8px }
.said-by p { margin: 0; line-height: 1.35 }
.said-by .by { display: flex; flex-wrap: wrap; gap: 2px 8px; font-size: 12.5px; color: var(--soft) }
.said-by .chip { margin: 0; font-size: 11.5px; padding: 0 8px }
td.sure { font-weight: 600 }
"""
)


def comparison_page(
    methods: Sequence[Method], captions: Sequence[Sequence[Mapping[str, Any]]], shards: Folder | None
) -> str:
    """A whole HTML document.

    captions: of each method's first run, the same pairs in the same order. shards: the images; None where they are not
    here.
    """
    protocol, count = methods[0].first.scores["protocol"], methods[0].first.scores["n"]
    labels = [method.label for method in methods]
    title = " against ".join(labels)
    on = f"{count['total']:,} pairs of the {protocol['split']} split of {protocol['data']['name']}"
    seeds = ", ".join(f"{method.label} {len(method.runs)}" for method in methods)
    lead = f"The same {on}, protocol {protocol['name'] or 'without a name'}. Seeds: {seeds}."
    shown = [judge(of) for of in captions]
    stream = shards.stream("pair", protocol["split"]) if shards else None
    body = "".join(
        (
            f"<h1>{escape(title)}</h1><p class='lead'>{escape(lead)}</p>",
            _scores(methods),
            _differences(methods, captions),
            _curves(methods),
            _captions(labels, shown, stream),
            _about(methods),
        )
    )
    return page(f"{title}: what changed?", body, OWN_STYLE)


def _scores(methods: Sequence[Method]) -> str:
    labels = [method.label for method in methods]
    head = "<th></th>" + "".join(f"<th>{name(i, label)}</th>" for i, label in enumerate(labels))
    lines = [
        f"<tr><td>{escape(line[0])}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in rows(methods)
    ]
    charts = []
    for section, figure, label in STRIPS:
        found = {method.label: [one for one in method.figure(section, figure) if one is not None] for method in methods}
        charts.append(strips(label, found))
    note = (
        "Of several seeds: mean ± standard deviation (n - 1); a dot is a seed, a stroke the mean. Of one seed: the "
        "figure and its 95 % interval over pairs, which does not have the luck of the seed in it."
    )
    return (
        f"<h2>Scores</h2><p class='note'>{note}</p>{data_table(head, lines)}"
        f'<div class="charts" style="margin-top:12px">{"".join(charts)}</div>'
    )


def _differences(methods: Sequence[Method], captions: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Of each other method to the first, on the captions of their first runs."""
    found = methods[0].first.scores["protocol"]["name"]
    tokenizer = NAMED[found].tokenizer if found else "ptb"
    lines = []
    for place, method in list(enumerate(methods))[1:]:
        tested = against(captions[place], captions[0], tokenizer)
        entries = [
            (f"{figure}, {'all pairs' if subset == 'total' else subset}", figures[figure], tested["n"][subset])
            for subset, figures in tested["sets"].items()
            for figure in FIGURES
        ]
        entries += [
            (f"says rightly: {kind}", figure, figure["n"])
            for kind, figure in tested["accuracy"].items()
            if figure["difference"] is not None
        ]
        lines += [f'<tr class="main"><td colspan="8">{name(place, method.label)}</td></tr>']
        lines += [
            f'<tr class="part"><td>{escape(label)}</td><td>{count}</td>{_figure(figure)}</tr>'
            for label, figure, count in entries
        ]
    heads = ("", "pairs", "difference", "95 %", "p", "better", "worse", "equal")
    head = "".join(f"<th>{label}</th>" for label in heads)
    first = methods[0]
    note = f"Minus {first.label}, on the captions of the first seed of each. {HOW[0].upper()}{HOW[1:]}."
    return f"<h2>Pair by pair</h2><p class='note'>{escape(note)}</p>{data_table(head, lines)}"


def _figure(figure: Mapping[str, Any]) -> str:
    if figure["difference"] is None:
        return f"<td>{number(None, figure['reason'])}</td>" + "<td></td>" * 5
    ends, p = figure["interval"], figure["p"]
    why = figure.get("reason", "")
    said = number(None, why) if ends is None else f"{ends[0]:+.1f} to {ends[1]:+.1f}"
    sure = ' class="sure"' if p is not None and p < 0.05 else ""
    cells = "".join(f"<td>{figure[side]}</td>" for side in ("better", "worse", "equal"))
    return f"<td{sure}>{figure['difference']:+.1f}</td><td>{said}</td><td{sure}>{number(p, why, 3)}</td>{cells}"


def _curves(methods: Sequence[Method]) -> str:
    """Validation scores and losses of all methods, by stage; a curve a seed."""
    found = {method.label: [curves(read_metrics(one.run)) for one in method.runs] for method in methods}
    stages = dict.fromkeys(stage for of in found.values() for one in of for stage in one)
    parts = []
    for stage in stages:
        charts = []
        for kind, named in (("validation {}", "validation"), ("{} loss", "losses")):
            for title in _titles(found, stage, named):
                points = {label: [_points(one.get(stage), named, title) for one in of] for label, of in found.items()}
                charts.append(overlaid(kind.format(title), points, smooth=named == "losses"))
        parts.append(f'<h3>{escape(stage_title(stage))}</h3><div class="charts">{"".join(charts)}</div>')
    if not parts:
        return ""
    note = "A curve is a seed. Losses are running means. Losses of other objectives or weights cannot be compared."
    labels = [method.label for method in methods]
    return f"<h2>Curves</h2><p class='note'>{note}</p>{legend(labels)}{''.join(parts)}"


def _captions(labels: Sequence[str], shown: Sequence[Sequence[Shown]], stream: Stream | None) -> str:
    if not shown[0]:
        return ""
    places = range(len(shown[0]))
    apart = sorted(places, key=lambda i: -_range([of[i].cider for of in shown]))
    apart = [i for i in apart[:APART] if _range([of[i].cider for of in shown]) > 0]
    chosen = drawn(shown[0], 0)
    random = [i for i in places if shown[0][i] in chosen]
    kinds = dict.fromkeys(shown[0][i].kind for i in (*apart, *random))
    buttons = "".join(
        f'<button data-show="{escape(kind)}" aria-pressed="{"false" if kind else "true"}">{escape(label)}</button>'
        for kind, label in [("", "all"), *((kind, kind_name(kind)) for kind in kinds if kind)]
    )
    sections = ""
    for title, of in (("Where they differ most by CIDEr", apart), ("Drawn at random", random)):
        cards = "".join(_card(labels, [one[i] for one in shown], stream) for i in of)
        sections += f'<section><h3>{title}</h3><div class="cards">{cards}</div></section>' if of else ""
    note = (
        "What each method said, of its first seed; below: the references. Click a pair to switch its images."
        if stream
        else "What each method said, of its first seed; below: the references. The images are not here: name their "
        "folder with --shards."
    )
    filters = f'<div class="filter">{buttons}</div>' if any(kinds) else ""
    return f"<h2>Captions</h2><p class='note'>{note}</p>{filters}<div id=\"gallery\">{sections}</div>"


def _card(labels: Sequence[str], said: Sequence[Shown], stream: Stream | None) -> str:
    prediction = said[0].prediction
    figures = ""
    if stream:
        images = stream.images(stream.find(prediction["key"]))
        figures = '<div class="pair" title="click: switch between the two images">' + "".join(
            f'<figure><img src="{thumbnail(images[role])}" alt="{role} image" loading="lazy"/>'
            f"<figcaption>{role}</figcaption></figure>"
            for role in ("before", "after")
        ) + "</div>"  # fmt: skip
    lines = ""
    for place, (label, one) in enumerate(zip(labels, said, strict=True)):
        chip = f'<span class="chip {one.verdict}">{VERDICTS[one.verdict]}</span>' if one.verdict else ""
        cider = "" if one.cider is None else f"<span>CIDEr {one.cider:.0f}</span>"
        sentence = escape(one.prediction["caption"]) or "<i>nothing said</i>"
        lines += f'<p><span class="by">{name(place, label)}{cider}{chip}</span><b>{sentence}</b></p>'
    references = [*dict.fromkeys(prediction["references"])]
    more = f" (+{len(references) - REFERENCES})" if len(references) > REFERENCES else ""
    return (
        f'<article class="card" data-kind="{escape(said[0].kind or "")}">{figures}<div class="said-by">{lines}</div>'
        f'<p class="truth" title="{escape(" | ".join(references), quote=True)}">'
        f"{escape(' · '.join(references[:REFERENCES]))}{more}</p>"
        f'<p class="facts">{escape(prediction["key"])}</p></article>'
    )


def _about(methods: Sequence[Method]) -> str:
    """Options in which the methods differ, and what each one's figures are of."""
    head = "<th></th>" + "".join(f"<th>{name(i, method.label)}</th>" for i, method in enumerate(methods))
    lines = [
        f"<tr><td>{escape(option)}</td>{''.join(f'<td>{escape(_value(value))}</td>' for value in values)}</tr>"
        for option, values in differing_options(methods).items()
    ]
    parts = [f"<h2>Options that differ</h2>{data_table(head, lines)}"] if lines else []
    protocol = methods[0].first.scores["protocol"]
    of_all = {
        "data": f"{protocol['data']['name']}, manifest sha256 {protocol['data']['manifest_sha256'][:16]}",
        "words": protocol["tokenizer"],
        "references": protocol["references"]["merge"],
        "metrics": protocol["metrics"],
    }
    parts.append(f"<h2>Protocol</h2>{facts(of_all)}")
    for place, method in enumerate(methods):
        own = method.first.scores["protocol"]
        decoding, rule, code = own["decoding"], own["selection"], own["code"]
        parts.append(
            f"<h3>{name(place, method.label)}</h3>"
            + facts(
                {
                    "runs": ", ".join(str(one.results) for one in method.runs),
                    "decoding": f"beam {decoding['beam']}, length penalty {decoding['length_penalty']:g}",
                    "checkpoint": rule["reason"] if rule["rule"] is None
                    else f"best {rule['metric']} of {rule['stage']} on {rule['split']}" if rule["rule"] == "best"
                    else f"last of {rule['stage']}",
                    "code": (code["commit"] or code["sha256"])[:12],
                }
            )
        )  # fmt: skip
    return "".join(parts)


def _titles(found: Mapping[str, Sequence[Mapping[str, Curves]]], stage: str, named: str) -> list[str]:
    """The names of a stage's curves in any run."""
    runs = [one[stage] for of in found.values() for one in of if stage in one]
    return [*dict.fromkeys(title for one in runs for title in sorted(getattr(one, named)))]


def _points(of: Curves | None, named: str, title: str) -> list[tuple[float, float]]:
    return getattr(of, named).get(title, []) if of else []


def _range(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) == len(values) else 0.0


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
