"""Charts of several methods at once, a colour each: their curves in one frame, their figures on one line."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape

from cluster.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Points,
    axis,
    drawing,
    grid,
    path,
    running_mean,
    short_number,
)

COLOURS = 6  # then they begin again
# Told apart by people who see few colours, too: the palette of Okabe and Ito (2008), its yellow darkened.
STYLE = (
    """
:root { --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #a6518a; --c4: #8a7600; --c5: #56b4e9 }
@media (prefers-color-scheme: dark) {
  :root { --c0: #5cb3ef; --c1: #ff9a5c; --c2: #3fd3a8; --c3: #e9a3cf; --c4: #e3cf4a; --c5: #a8dcff }
}
"""
    + "".join(
        f"svg polyline.c{i} {{ stroke: var(--c{i}) }} svg circle.c{i} {{ fill: var(--c{i}) }} "
        f"svg line.c{i} {{ stroke: var(--c{i}); stroke-width: 3 }} .name.c{i}::before {{ background: var(--c{i}) }}\n"
        for i in range(COLOURS)
    )
    + """
svg text.over { paint-order: stroke; stroke: var(--card); stroke-width: 5px; stroke-linejoin: round }
.name { white-space: nowrap }
.name::before {
  content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px;
  vertical-align: -1px
}
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 14px; font-size: 14.5px }
"""
)


def name(place: int, label: str) -> str:
    """A method's name with its colour, HTML."""
    return f'<span class="name c{place % COLOURS}">{escape(label)}</span>'


def legend(labels: Sequence[str]) -> str:
    """All names in a row."""
    return f'<div class="legend">{"".join(name(i, label) for i, label in enumerate(labels))}</div>'


def overlaid(title: str, curves: Mapping[str, Sequence[Points]], smooth: bool = False) -> str:
    """Curves over steps in one frame: of each method one for each of its seeds, in the method's colour.

    smooth: running means. "" where no method has a point.
    """
    shown = {
        label: [[(x, y) for x, y in (running_mean(one) if smooth else one) if math.isfinite(y)] for one in of]
        for label, of in curves.items()
    }
    values = [y for of in shown.values() for one in of for _, y in one]
    if not values:
        return ""
    steps = max(x for of in shown.values() for one in of for x, _ in one)
    low, high, ticks = axis(values)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x / steps if steps else 0.5)
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((y - low) / (high - low))

    parts = [f'<text x="{LEFT}" y="15" class="chart-title">{escape(title)}</text>']
    parts += grid({tick: place(0, tick)[1] for tick in ticks}, LEFT, WIDTH - RIGHT)
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}" class="tick">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" class="tick end">{steps:,.0f} steps</text>')
    ends = []
    for i, (label, of) in enumerate(shown.items()):
        for one in filter(None, of):
            parts.append(f'<polyline points="{path(one, place)}" class="c{i % COLOURS}"/>')
            x, y = place(*one[-1])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="c{i % COLOURS}"/>')
            ends.append(f"{label} ends at {short_number(one[-1][1], 3)}")
    return drawing(WIDTH, HEIGHT, f"{title}: {'; '.join(ends)}", "chart", parts)


def strips(title: str, figures: Mapping[str, Sequence[float]]) -> str:
    """A line a method: a dot for each of its seeds, a stroke at their mean. "" where no method has a value."""
    if not any(figures.values()):
        return ""
    left, right, top, row = 10, 16, 32, 38
    height = top + row * len(figures) + BOTTOM
    low, high, ticks = axis([value for of in figures.values() for value in of])

    def across(value: float) -> float:
        return left + (WIDTH - left - right) * (value - low) / (high - low)

    parts = [f'<text x="{left}" y="15" class="chart-title">{escape(title)}</text>']
    bottom = height - BOTTOM + 2
    for tick in ticks:
        x = across(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        anchor = "middle" if left + 12 < x < WIDTH - right - 12 else "end" if x > WIDTH / 2 else ""
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" class="tick {anchor}">{short_number(tick)}</text>')
    said = []
    for i, (label, of) in enumerate(figures.items()):
        y = top + row * i + 24
        if not of:
            continue
        parts.append(f'<text x="{left}" y="{y - 12}" class="tick over">{escape(label)}</text>')
        mean = statistics.mean(of)
        if len(of) > 1:
            x = across(mean)
            parts.append(f'<line x1="{x:.1f}" y1="{y - 7}" x2="{x:.1f}" y2="{y + 7}" class="c{i % COLOURS}"/>')
        parts += [f'<circle cx="{across(value):.1f}" cy="{y}" r="4.2" class="c{i % COLOURS}"/>' for value in of]
        said.append(f"{label} {short_number(mean, 3)}")
    return drawing(WIDTH, height, f"{title}: {'; '.join(said)}", "chart", parts)
