"""Charts of a sweep as inline SVG: curves with rungs, bars, slices, parallel coordinates.

Colours are CSS variables of the page, so they follow its light or dark; a better trial is drawn stronger. Trials that
did not finish are broken lines and hollow dots: their scores are after fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cluster.report.charts import axis, drawing, grid, short_number
from tune.search.dimension import Dimension, Value
from tune.search.table import FINISHED, Trial

STYLE = """
svg.curves, svg.parallel, svg.bars { width: 100%; height: auto; display: block; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px }
svg .rung { stroke: var(--fair); stroke-dasharray: 4 4 }
svg .trial { cursor: pointer }
svg .trial polyline { stroke-width: 1.6 }
svg .trial .wide-hit { stroke-width: 9; opacity: 0 }
svg .trial circle { fill: var(--accent) }
svg .trial.unfinished polyline.seen { stroke-dasharray: 5 4 }
svg .trial.unfinished circle { fill: var(--card); stroke: var(--accent); stroke-width: 1.4 }
svg .trial.winner polyline.seen { stroke: var(--good); stroke-width: 3 }
svg .trial.winner circle { fill: var(--good) }
svg .trial:hover polyline.seen, svg .trial.lit polyline.seen { stroke: var(--bad); stroke-width: 3.2; opacity: 1 }
svg .trial:hover circle, svg .trial.lit circle { fill: var(--bad); opacity: 1 }
svg .axis { stroke: var(--soft); opacity: .5 }
svg .bar-fill { fill: var(--accent) }
pre.command { white-space: pre-wrap }
svg .own { stroke: var(--soft); stroke-dasharray: 2 3 }
"""
# A trial under the pointer is lit in every chart.
SCRIPT = """
for (const one of document.querySelectorAll("svg .trial")) for (const [event, lit] of [["mouseenter", true], ["mouseleave", false]])
  one.addEventListener(event, () => {
    for (const same of document.querySelectorAll(`svg .trial[data-trial="${one.dataset.trial}"]`)) same.classList.toggle("lit", lit);
  });
"""  # noqa: E501


def strength(rank: int, count: int) -> float:
    """How strongly a trial is drawn: 1 the best, 0.15 the last."""
    return 1.0 - 0.85 * rank / max(count - 1, 1)


def _group(trial: Trial, rank: int, count: int, shapes: str, more: str = "") -> str:
    kind = "" if trial.state == FINISHED else " unfinished"
    kind += " winner" if rank == 0 and not kind else ""
    score = f"CIDEr {trial.score:.1f} at step {trial.kept} of {trial.step}"
    label = f"trial {trial.number} ({trial.key}), {trial.state}, {score}{more}"
    return (
        f'<g class="trial{kind}" data-trial="{trial.key}" style="opacity:{strength(rank, count):.2f}">{shapes}'
        f"<title>{escape(label)}</title></g>"
    )


def curves(trials: Sequence[Trial], rungs: Sequence[int], steps: int) -> str:
    """CIDEr over fine-tuning steps of all trials (the best first), with the rungs at which ASHA decides."""
    width, height, left, right, top, bottom = 1060, 360, 48, 16, 16, 28
    low, high, ticks = axis([score for trial in trials for score in trial.scores.values()])

    def place(step: float, score: float) -> tuple[float, float]:
        up = (score - low) / (high - low)
        return left + (width - left - right) * step / steps, height - bottom - (height - top - bottom) * up

    parts = []
    parts += grid({tick: place(0, tick)[1] for tick in ticks}, left, width - right)
    for step in rungs:
        x, _ = place(step, low)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - bottom}" class="rung"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" class="middle">rung {step}</text>')
    parts.append(f'<text x="{width - right}" y="{height - 10}" class="end">{steps} steps</text>')
    for rank, trial in reversed(list(enumerate(trials))):
        found = [place(step, score) for step, score in sorted(trial.scores.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in found)
        x, y = found[-1]
        dots = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
        lines = f'<polyline points="{path}" class="seen"/><polyline points="{path}" class="wide-hit"/>'
        parts.append(_group(trial, rank, len(trials), lines + dots))
    label = f"CIDEr of {len(trials)} trials over {steps} steps"
    return drawing(width, height, label, "curves", parts)


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """A bar for each dimension, the longest first."""
    width, row, left = 1060, 24, 230
    height = row * len(shares) + 16
    most = max((share for _, share in shares), default=0) or 1
    parts = []
    for number, (name, share) in enumerate(sorted(shares, key=lambda one: -one[1])):
        y = 8 + number * row
        length = (width - left - 90) * share / most
        parts.append(f'<text x="{left - 10}" y="{y + 16}" class="end">{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 5}" width="{length:.1f}" height="14" rx="4" class="bar-fill"/>')
        parts.append(f'<text x="{left + length + 8:.1f}" y="{y + 16}">{100 * share:.0f} %</text>')
    return drawing(width, height, "importance", "bars", parts)


def slice_chart(one: Dimension, trials: Sequence[Trial], steps: int, own: Value | None) -> str:
    """CIDEr of each trial over the values of one dimension; a larger dot went further in training."""
    width, height, left, right, top, bottom = 320, 190, 44, 14, 28, 30
    low, high, ticks = axis([trial.value for trial in trials])

    def across(value: Value) -> float:
        return left + (width - left - right) * one.place(value)

    def up(score: float) -> float:
        return height - bottom - (height - top - bottom) * (score - low) / (high - low)

    parts = [f'<text x="{left}" y="16" class="chart-title">{escape(one.name)}</text>']
    parts += grid({tick: up(tick) for tick in ticks}, left, width - right)
    for number, (place, text) in enumerate(_ticks(one)):
        x = left + (width - left - right) * place
        side = "middle" if 0.1 < place < 0.9 or one.choices else "end" if place > 0.5 else ""
        under = height - 16 + 11 * (number % 2) if one.choices else height - 10  # names of choices need two lines
        parts.append(f'<text x="{x:.1f}" y="{under}" class="{side}">{escape(text)}</text>')
    if own is not None and one.has(own):
        x = across(own)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - bottom}" class="own"/>')
    for rank, trial in reversed(list(enumerate(trials))):
        y = up(trial.value)
        size = 2.2 + 3.0 * trial.step / steps
        shape = f'<circle cx="{across(trial.values[one.name]):.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
        parts.append(_group(trial, rank, len(trials), shape, f", {one.name} {show_value(trial.values[one.name])}"))
    return drawing(width, height, f"CIDEr over {one.name}", "chart", parts)


def parallel(dimensions: Sequence[Dimension], trials: Sequence[Trial]) -> str:
    """One line a trial through its values on all dimensions, to its CIDEr on the last axis."""
    step, left, top, bottom = 92, 46, 96, 28
    width, height = left * 2 + step * len(dimensions), 420
    low, high, ticks = axis([trial.value for trial in trials])

    def up(place: float) -> float:
        return height - bottom - (height - top - bottom) * place

    parts = []
    for number, one in enumerate(dimensions):
        x = left + step * number
        parts.append(f'<line x1="{x}" y1="{up(0)}" x2="{x}" y2="{up(1)}" class="axis"/>')
        name = f'<text x="{x - 4}" y="{top - 12}" transform="rotate(-24 {x - 4} {top - 12})"'
        parts.append(f'{name} class="chart-title">{escape(one.name)}</text>')
        for place, text in _ticks(one):
            parts.append(f'<text x="{x - 5}" y="{up(place) + 3.5:.1f}" class="end">{escape(text)}</text>')
    x = left + step * len(dimensions)
    parts.append(f'<line x1="{x}" y1="{up(0)}" x2="{x}" y2="{up(1)}" class="axis"/>')
    parts.append(f'<text x="{x}" y="{top - 12}" class="chart-title middle">CIDEr</text>')
    for tick in ticks:
        parts.append(f'<text x="{x + 6}" y="{up((tick - low) / (high - low)) + 3.5:.1f}">{short_number(tick)}</text>')
    for rank, trial in reversed(list(enumerate(trials))):
        places = [one.place(trial.values[one.name]) for one in dimensions] + [(trial.value - low) / (high - low)]
        path = " ".join(f"{left + step * number},{up(place):.1f}" for number, place in enumerate(places))
        lines = f'<polyline points="{path}" class="seen"/><polyline points="{path}" class="wide-hit"/>'
        parts.append(_group(trial, rank, len(trials), lines))
    shown = drawing(width, height, "parallel coordinates", "parallel", parts, f"min-width:{width}px")
    return f'<div class="wide">{shown}</div>'


def _ticks(one: Dimension) -> list[tuple[float, str]]:
    """(place, text) of what is written along an axis: the ends and the middle, or the choices."""
    if one.choices:
        return [(one.place(choice), short_name(choice)) for choice in one.choices]
    return [(one.place(value), f"{value:.2g}") for value in dict.fromkeys((one.at(0.0), one.at(0.5), one.at(1.0)))]


def short_name(choice: str) -> str:
    """A choice that is a list of words by their first three letters: it has to fit under a chart."""
    words = choice.split(",")
    return choice if len(choice) < 8 else "+".join(word[:3] for word in words)


def show_value(value: Value) -> str:
    """A value for reading."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
