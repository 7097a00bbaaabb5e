"""Line charts and the skill scale as inline SVG; colours are CSS variables, so they follow the page's light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 22
MOST_POINTS = 400  # of a curve; more cannot be seen and make the page heavy

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str, points: Points, *, smooth: bool = False, from_zero: bool = False, mark: float | None = None
) -> str:
    """One curve over steps. smooth: a running mean in front of the pale raw curve. mark: a step to be ringed."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return ""
    shown = running_mean(points) if smooth else list(points)
    highest_step = max(x for x, _ in points)
    low, high, ticks = axis([*(y for _, y in shown), *([0.0] if from_zero else [])])

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x / highest_step if highest_step else 0.5)
        up = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((y - low) / (high - low))
        return across, min(max(up, TOP - 6), HEIGHT - BOTTOM + 6)  # raw spikes end at the edge

    parts = [f'<text x="{LEFT}" y="15" class="chart-title">{escape(title)}</text>']
    parts += grid({tick: place(0, tick)[1] for tick in ticks}, LEFT, WIDTH - RIGHT)
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}" class="tick">0</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" class="tick end">{highest_step:,.0f} steps</text>')
    if smooth:
        parts.append(f'<polyline points="{path(points, place)}" class="raw"/>')
    parts.append(f'<polyline points="{path(shown, place)}" class="curve"/>')
    last = shown[-1]
    x, y = place(*last)
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="15" class="value end">{short_number(last[1], 3)}</text>')
    for step, value in points:
        if mark is not None and step == mark:
            x, y = place(step, value)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" class="ring"><title>chosen: {value:.1f}</title></circle>'
            )
    label = f"{title}: from {short_number(points[0][1], 3)} to {short_number(last[1], 3)} in {highest_step:.0f} steps"
    return drawing(WIDTH, HEIGHT, label, "chart", parts)


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Each value replaced by the mean of its neighbours, over a tenth of the curve."""
    reach = max(len(points) // 20, 1)
    values = [y for _, y in points]
    smooth = []
    for place, (x, _) in enumerate(points):
        around = values[max(place - reach, 0) : place + reach + 1]
        smooth.append((x, sum(around) / len(around)))
    return smooth


def skill_scale(title: str, constant: float, oracle: float, marks: Sequence[tuple[str, float, str]]) -> str:
    """CIDEr from 0 on one axis: the stretch between the best constant caption and the oracle, and marks upon it.

    marks: (label, CIDEr, CSS class). Labels alternate above and below the line.
    """
    width, height, left, right = 720, 96, 16, 24
    highest = max(oracle, *(value for _, value, _ in marks)) * 1.04 or 1.0

    def place(value: float) -> float:
        return left + (width - left - right) * max(value, 0.0) / highest

    stretch = max(place(oracle) - place(constant), 0.0)
    parts = [
        f'<text x="{left}" y="18" class="chart-title">{escape(title)}</text>',
        f'<line x1="{left}" y1="52" x2="{width - right}" y2="52" class="grid"/>',
        f'<rect x="{place(constant):.1f}" y="48" width="{stretch:.1f}" height="8" rx="4" class="stretch"/>',
    ]
    every = [("best constant", constant, "plain"), ("oracle", oracle, "plain"), *marks]
    last = {True: -1e9, False: -1e9}
    for label, value, kind in sorted(every, key=lambda mark: mark[1]):
        x = place(value)
        text = f"{label} {value:.1f}"
        half = 3.1 * len(text)
        above = last[True] <= last[False] if x - half < max(last[True], -1e8) else True
        centre = min(max(x, left + half), width - right - half)
        last[above] = centre + half + 8
        parts.append(f'<circle cx="{x:.1f}" cy="52" r="{7 if kind == "model" else 4.5}" class="mark {kind}"/>')
        parts.append(
            f'<text x="{centre:.1f}" y="{36 if above else 76}" class="tick middle {kind}">{escape(text)}</text>'
        )
    return f'<div class="wide">{drawing(width, height, title, "scale", parts)}</div>'


def drawing(width: int, height: int, label: str, kind: str, parts: Sequence[str], style: str = "") -> str:
    """An SVG of these parts. label: what it shows, for those who cannot see it; kind: its CSS class."""
    styled = f' style="{style}"' if style else ""
    frame = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label, quote=True)}" class="{kind}"'
    return f"{frame}{styled}>{''.join(parts)}</svg>"


def grid(ticks: Mapping[float, float], left: float, right: float) -> list[str]:
    """Lines across a chart from x `left` to `right`, each with its number. ticks: number -> y."""
    parts = []
    for tick, y in ticks.items():
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 3.5:.1f}" class="tick end">{short_number(tick)}</text>')
    return parts


def path(points: Points, place) -> str:
    """The points of a polyline, at most MOST_POINTS or so. place: (x, y) -> where that is in the drawing."""
    stride = max(-(-len(points) // MOST_POINTS), 1)
    kept = [*points[::stride], *([points[-1]] if (len(points) - 1) % stride else [])]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in kept))


def axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """(lowest, highest, ticks at round numbers) that hold all values."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - max(abs(low) * 0.1, 0.1), high + max(abs(high) * 0.1, 0.1)
    if 0 <= low < 0.5 * high:
        low = 0.0
    raw = (high - low) / 3
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw)
    first = math.floor(low / step) * step
    count = math.ceil((high - first) / step - 1e-9)
    return first, first + count * step, [first + number * step for number in range(count + 1)]


def short_number(value: float, digits: int = 2) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{digits + 1}g}" if abs(value) < 100 else f"{value:.0f}"
