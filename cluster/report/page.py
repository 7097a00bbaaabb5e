"""The frame of a report: one HTML file, style and script inside, no network, light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f6f2; --card: #ffffff; --ink: #1f2328; --soft: #626a73; --line: #e2e0d8; --accent: #2f6fde;
  --good: #1a7f4b; --good-bg: #ddf3e6; --fair: #8a5a00; --fair-bg: #fbecc9; --bad: #b3261e; --bad-bg: #fbdfdc;
  --on-accent: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #9aa3ad; --line: #31373e; --accent: #7aa7ff;
    --good: #6fd6a0; --good-bg: #17382a; --fair: #f0c062; --fair-bg: #3c2f12; --bad: #ff9a90; --bad-bg: #45201d;
    --on-accent: #10141a;
  }
}
* { box-sizing: border-box }
[hidden] { display: none !important }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 80px }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px }
h2 { font-size: 21px; margin: 48px 0 8px }
h3 { font-size: 16px; margin: 28px 0 10px; color: var(--soft); font-weight: 600 }
p.lead, p.note { color: var(--soft); margin: 0 0 16px; max-width: 78ch }
p.note { font-size: 14.5px }

.top { display: grid; grid-template-columns: minmax(0, 480px) 1fr; gap: 20px; margin-top: 24px; align-items: stretch }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px }
.tile { padding: 14px 16px }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-variant-numeric: tabular-nums }
.tile span { display: block; margin-top: 2px; color: var(--soft); font-size: 13.5px; line-height: 1.4 }
.tile, .card, .scroll, details, svg.chart, svg.scale {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px
}

.scroll { overflow-x: auto }
.scroll + p.note { margin-top: 10px }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums }
th, td { padding: 7px 12px; text-align: right; white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td:first-child, th:first-child { text-align: left }
tbody tr { border-top: 1px solid var(--line) }
tr.main td { font-weight: 600 }
tr.part td:first-child { padding-left: 28px }
tr.base td { color: var(--soft) }
td.text { white-space: normal; min-width: 16em; text-align: left }
.missing { color: var(--soft); cursor: help }
.bar {
  display: inline-block; width: 90px; height: 8px; border-radius: 4px; background: var(--line);
  margin-right: 8px; vertical-align: 1px; overflow: hidden
}
.bar i { display: block; height: 100%; background: var(--accent) }

.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px }
svg.chart, svg.scale { width: 100%; height: auto; display: block }
.wide { overflow-x: auto; margin-top: 12px }
svg.scale { min-width: 560px }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .chart-title { font-weight: 600; font-size: 12.5px; fill: var(--ink) }
svg .value { font-size: 12px; fill: var(--accent); font-weight: 600 }
svg .end { text-anchor: end }
svg .middle { text-anchor: middle }
svg .grid { stroke: var(--line) }
svg polyline { fill: none; stroke: var(--accent); stroke-width: 1.8; stroke-linejoin: round }
svg .raw { opacity: .28; stroke-width: 1 }
svg .dot { fill: var(--accent) }
svg .ring { fill: none; stroke: var(--good); stroke-width: 2 }
svg .stretch { fill: var(--accent); opacity: .25 }
svg .mark { fill: var(--soft) }
svg .mark.model { fill: var(--accent) }
svg text.model { fill: var(--accent); font-weight: 700; font-size: 12.5px }

svg .diagonal { stroke: var(--soft); stroke-dasharray: 4 4 }
.charts.beside { grid-template-columns: minmax(0, 340px) minmax(0, 1fr) }
.cell { display: inline-block; min-width: 40px; padding: 1px 8px; border-radius: 6px; text-align: center }
.cell.right { background: color-mix(in srgb, var(--good) calc(var(--share) * .45), transparent) }
.cell.wrong { background: color-mix(in srgb, var(--bad) calc(10% + var(--share) * .6), transparent) }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 14px }
.card { padding: 12px }
.card p { margin: 6px 0 0 }
.card .said { font-size: 16.5px; font-weight: 600; line-height: 1.3; margin-top: 10px }
.card.large .said { font-size: 22px }
.card .truth { color: var(--soft); font-size: 14px; line-height: 1.35 }
.card .facts { color: var(--soft); font-size: 12px; overflow-wrap: anywhere; opacity: .8 }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; cursor: pointer; position: relative }
.pair > button {
  position: absolute; right: 6px; bottom: 6px; width: 34px; height: 34px; border: 0; border-radius: 8px; padding: 0;
  font-size: 17px; line-height: 1; background: rgba(0, 0, 0, .55); color: #fff; cursor: pointer
}
dialog { border: 0; border-radius: 14px; padding: 14px; background: var(--card); color: var(--ink); max-width: 96vw }
dialog[open] { width: min(96vw, 1400px); max-height: 94vh }
dialog::backdrop { background: rgba(0, 0, 0, .7) }
dialog .pair img { max-height: 72vh; object-fit: contain; background: none }
dialog .pair > button { display: none }
dialog p { margin: 10px 0 0; font-size: 18px; font-weight: 600 }
dialog form { display: flex; justify-content: flex-end; margin: 0 0 8px }
dialog form button {
  font: inherit; border: 1px solid var(--line); background: var(--page); color: var(--ink); border-radius: 20px;
  padding: 3px 16px; cursor: pointer
}
figure { margin: 0; position: relative }
figure img { width: 100%; display: block; border-radius: 8px; background: var(--line) }
figcaption {
  position: absolute; left: 6px; top: 6px; font-size: 11px; background: rgba(0, 0, 0, .55); color: #fff;
  border-radius: 5px; padding: 0 6px
}
.chip { display: inline-block; border-radius: 20px; padding: 1px 10px; font-size: 12.5px; font-weight: 600 }
.chip { margin-top: 6px; background: var(--bad-bg); color: var(--bad) }
.chip.right { background: var(--good-bg); color: var(--good) }
.chip.far { background: var(--line); color: var(--ink); margin-left: 6px }
.chip.partly { background: var(--fair-bg); color: var(--fair) }
.filter { margin: 4px 0 16px; display: flex; flex-wrap: wrap; gap: 8px }
.filter button {
  font: inherit; font-size: 14px; border: 1px solid var(--line); background: var(--card); color: var(--ink);
  border-radius: 20px; padding: 3px 14px; cursor: pointer
}
.filter button[aria-pressed=true] { background: var(--accent); border-color: var(--accent); color: var(--on-accent) }

details { padding: 10px 16px; margin-top: 10px }
summary { cursor: pointer; font-weight: 600 }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; margin: 10px 0 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 14.5px }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
h1, h3 { overflow-wrap: anywhere }
@media (max-width: 760px) {
  .top, .charts.beside { grid-template-columns: minmax(0, 1fr) }
  th, td { padding: 6px 8px }
  dialog .pair { grid-template-columns: minmax(0, 1fr) }
  dialog .pair img { max-height: 36vh }
  main { padding: 20px 14px 60px }
  dl { grid-template-columns: 1fr }
  dd { margin-bottom: 6px }
}
"""

# Clicking a pair shows the other image in both places, as people compare by blinking; its corner enlarges it; the
# filter hides cards.
SCRIPT = """
const swap = pair => {
  const [one, other] = pair.querySelectorAll("img"), [a, b] = pair.querySelectorAll("figcaption");
  [one.src, other.src] = [other.src, one.src];
  [a.textContent, b.textContent] = [b.textContent, a.textContent];
};
const large = document.createElement("dialog");
large.innerHTML = '<form method="dialog"><button>close</button></form><div></div><p></p>';
large.addEventListener("click", event => {
  const pair = event.target.closest(".pair");
  if (pair) swap(pair); else if (event.target === large) large.close();
});
document.body.append(large);
for (const pair of document.querySelectorAll(".pair")) {
  const button = document.createElement("button");
  [button.textContent, button.title, button.type] = ["⤢", "enlarge", "button"];
  button.setAttribute("aria-label", "enlarge");
  pair.append(button);
  pair.addEventListener("click", event => {
    if (event.target !== button) return swap(pair);
    const copy = pair.cloneNode(true), said = pair.parentElement.querySelector(".said");
    large.querySelector(":scope > div, :scope > .pair").replaceWith(copy);
    large.querySelector("p").textContent = said ? said.textContent : "";
    large.showModal();
  });
}
const fits = (card, wanted) => wanted === "" || card.dataset.kind === wanted || card.dataset.far === wanted ||
  (wanted === "right" && card.dataset.verdict === "right") || (wanted === "not" && card.dataset.verdict !== "right");
for (const filter of document.querySelectorAll(".filter")) filter.addEventListener("click", event => {
  const wanted = event.target.dataset.show;
  if (wanted === undefined) return;
  for (const button of filter.children) button.setAttribute("aria-pressed", button === event.target);
  for (const section of document.querySelectorAll("#gallery section")) {
    let any = false;
    for (const card of section.querySelectorAll(".card")) any = !(card.hidden = !fits(card, wanted)) || any;
    section.hidden = !any;
  }
});
"""


def tiles(entries: Sequence[tuple[str, str]]) -> str:
    """Boxes of (HTML of a figure, what it is, plain text)."""
    boxes = "".join(f'<div class="tile"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in entries)
    return f'<div class="tiles">{boxes}</div>'


def data_table(head: str, rows: Sequence[str]) -> str:
    """A table that scrolls sideways. head: the `th` elements, "" for none; rows: whole `tr` elements."""
    body = (f"<thead><tr>{head}</tr></thead>" if head else "") + f"<tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def facts(entries: Mapping[str, object]) -> str:
    """A list of names and what they are, plain text; those that say nothing are left out."""
    rows = (
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries.items()
        if value not in ("", None)
    )  # fmt: skip
    return f"<dl>{''.join(rows)}</dl>"


def number(value: float | None, reason: str = "", digits: int = 1) -> str:
    """A number, or a dash that says on hovering why there is none."""
    if value is None:
        return f'<span class="missing" title="{escape(reason or "not known", quote=True)}">–</span>'
    return f"{value:.{digits}f}"


def page(title: str, body: str, style: str = "") -> str:
    """A whole HTML document. style: CSS besides that of all pages."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )
