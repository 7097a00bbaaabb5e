"""The frame, tables, charts and cards of a contact sheet: one HTML file, no script, no network.

It has the look of the training reports, light or dark as the reader has it.
"""

from __future__ import annotations

import base64
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

THUMBNAIL = 320  # pixels a side, at most
JPEG_QUALITY = 82
BINS = 40  # bars of a histogram, at most

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f6f2; --card: #ffffff; --ink: #1f2328; --soft: #626a73; --line: #e2e0d8; --accent: #2f6fde;
  --good: #1a7f4b; --good-bg: #ddf3e6; --fair: #8a5a00; --fair-bg: #fbecc9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #9aa3ad; --line: #31373e; --accent: #7aa7ff;
    --good: #6fd6a0; --good-bg: #17382a; --fair: #f0c062; --fair-bg: #3c2f12;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif }
main { max-width: 1200px; margin: 0 auto; padding: 32px 24px 80px }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 21px; margin: 44px 0 12px }
h3 { font-size: 14.5px; margin: 0 0 8px }
p.lead, p.note { color: var(--soft); margin: 0 0 16px; max-width: 90ch; overflow-wrap: anywhere }
p.note { font-size: 14.5px; margin: 8px 0 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 12px; margin: 22px 0 12px }
.tile, .card, .panel { background: var(--card); border: 1px solid var(--line); border-radius: 12px }
.tile { padding: 14px 16px }
.tile b { display: block; font-size: 28px; line-height: 1.15; font-variant-numeric: tabular-nums }
.tile span { display: block; margin-top: 2px; color: var(--soft); font-size: 13.5px; line-height: 1.4 }
.panels { columns: 3 330px; column-gap: 12px }
.panel { padding: 14px 16px; margin: 0 0 12px; overflow-x: auto; break-inside: avoid }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums }
th, td { padding: 5px 0 5px 14px; text-align: right; white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td:first-child, th:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere }
tbody tr { border-top: 1px solid var(--line) }
svg { width: 100%; height: auto; display: block }
svg rect { fill: var(--accent) }
svg line { stroke: var(--line) }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .end { text-anchor: end }
svg .middle { text-anchor: middle }
.words { margin: 0; font-size: 14px; line-height: 1.75; overflow-wrap: anywhere }
.words span { white-space: nowrap }
.words i { font-style: normal; color: var(--soft); font-size: 12px }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 14px; align-items: start }
.cards.small { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)) }
.card { padding: 12px; overflow-wrap: anywhere }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px }
figure { margin: 0; position: relative }
figure img {
  width: 100%; aspect-ratio: 4 / 3; object-fit: contain; display: block; border-radius: 8px; background: var(--line)
}
.pair img { aspect-ratio: auto; max-height: 320px }
figcaption {
  position: absolute; left: 6px; top: 6px; font-size: 11px; background: rgba(0, 0, 0, .55); color: #fff;
  border-radius: 5px; padding: 0 6px
}
.chips { margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 6px }
.chip { border-radius: 20px; padding: 1px 10px; font-size: 12.5px; font-weight: 600 }
.chip { background: var(--page); color: var(--soft) }
.chip.yes { background: var(--fair-bg); color: var(--fair) }
.chip.no { background: var(--good-bg); color: var(--good) }
.card ul { margin: 8px 0 0; padding: 0; list-style: none; line-height: 1.35 }
.card li + li { margin-top: 4px }
.card .said { font-size: 15.5px }
.card .said li:first-child { font-weight: 600 }
.card .said li + li { color: var(--soft); font-size: 14px }
.card .negatives { border-top: 1px solid var(--line); padding-top: 8px; font-size: 13.5px }
.card .negatives b { color: var(--soft); font-weight: 600; font-size: 12px; margin-right: 4px }
.card .facts + .pair, .card .facts + figure { margin-top: 14px }
.card .facts { color: var(--soft); font-size: 12px; margin: 8px 0 0 }
.card p.none { color: var(--soft); font-style: italic; font-size: 14px; margin: 8px 0 0 }
details { margin-top: 6px; font-size: 13.5px }
summary { cursor: pointer; color: var(--soft) }
@media print { .card { break-inside: avoid } }
"""


def page(title: str, body: str) -> str:
    """A whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def safe(text: str) -> str:
    """Text as HTML: escaped, and without control characters, which no page may hold."""
    return escape("".join(letter for letter in text if unicodedata.category(letter) != "Cc"))


def thumbnail(pixels: np.ndarray) -> str:
    """A data URI of a small JPEG of uint8 pixels (height, width, 3)."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def tile(value: str, what: str) -> str:
    """A large figure with what it is."""
    return f'<div class="tile"><b>{safe(value)}</b><span>{safe(what)}</span></div>'


def panel(title: str, content: str) -> str:
    """A framed part of the overview; nothing where it has no content."""
    return f'<section class="panel"><h3>{safe(title)}</h3>{content}</section>' if content else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table with a line of headings; nothing where there are no rows. The first column is text, the others counts."""
    lines = []
    for first, *counts in rows:
        cells = "".join(f"<td>{count:,}</td>" if count else "<td>·</td>" for count in counts)
        lines.append(f"<tr><td>{safe(str(first))}</td>{cells}</tr>")
    titles = "".join(f"<th>{safe(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>" if lines else ""


def words(counts: Iterable[tuple[str, int]]) -> str:
    """Names in a running line, each with its count; nothing where there are none."""
    shown = " ".join(f"<span>{safe(name)} <i>{count:,}</i></span>" for name, count in counts)
    return f'<p class="words">{shown}</p>' if shown else ""


def histogram(counts: Counter[int], unit: str) -> str:
    """Bars as inline SVG, values from 0 on the x axis; nothing where there is nothing to count."""
    if not counts:
        return ""
    longest = max(counts)
    step = longest // BINS + 1
    bars = [0] * (longest // step + 1)
    for value, count in counts.items():
        bars[value // step] += count
    width, height, left, bottom, top = 420, 150, 8, 20, 16
    wide = (width - 2 * left) / len(bars)
    parts = [f'<line x1="{left}" y1="{height - bottom}" x2="{width - left}" y2="{height - bottom}"/>']
    for place, count in enumerate(bars):
        tall = (height - bottom - top) * count / max(bars)
        values = f"{place * step}" if step == 1 else f"{place * step} to {place * step + step - 1}"
        if count:
            parts.append(
                f'<rect x="{left + place * wide:.1f}" y="{height - bottom - tall:.1f}" width="{wide * 0.86:.1f}" '
                f'height="{max(tall, 0.8):.1f}"><title>{values} {unit}: {count:,}</title></rect>'
            )
    for place in range(0, len(bars), max(len(bars) // 6, 1)):
        x = left + (place + 0.43) * wide
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" class="middle">{place * step}</text>')
    highest = bars.index(max(bars))
    x = min(max(left + (highest + 0.43) * wide, 30), width - 30)
    parts.append(f'<text x="{x:.1f}" y="{top - 5}" class="middle">{max(bars):,}</text>')
    label = f"{sum(counts.values()):,} captions by their length, up to {longest} {unit}"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{safe(label)}">{"".join(parts)}</svg>'


def figure(pixels: np.ndarray, role: str, alt: str) -> str:
    """One picture; one of two has its role in the corner."""
    label = "" if role == "photo" else f"<figcaption>{safe(role)}</figcaption>"
    return f'<figure><img src="{thumbnail(pixels)}" alt="{safe(alt)}">{label}</figure>'


def chips(named: Iterable[tuple[str, str]]) -> str:
    """Labels: (CSS class, text)."""
    return (
        '<p class="chips">' + "".join(f'<span class="chip {kind}">{safe(text)}</span>' for kind, text in named) + "</p>"
    )


def said(captions: Sequence[str]) -> str:
    """All captions of a sample, or that it has none."""
    if not captions:
        return '<p class="none">no captions</p>'
    return '<ul class="said">' + "".join(f'<li dir="auto">{safe(caption)}</li>' for caption in captions) + "</ul>"


def negatives(lists: Mapping[str, Sequence[str]]) -> str:
    """One negative of each kind in sight, the others behind a click; nothing where there are none."""
    first = [(kind, sentences[0]) for kind, sentences in lists.items() if sentences]
    rest = [(kind, sentence) for kind, sentences in lists.items() for sentence in sentences[1:]]
    if not first:
        return ""
    more = f"<details><summary>{len(rest)} more negatives</summary><ul>{_items(rest)}</ul></details>" if rest else ""
    return f'<ul class="negatives">{_items(first)}</ul>{more}'


def _items(named: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<li dir="auto"><b>{safe(kind)}</b>{safe(sentence)}</li>' for kind, sentence in named)
