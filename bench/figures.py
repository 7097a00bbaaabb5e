"""Draws the diagrams of the pages as SVG: `python bench/figures.py [--out docs/img]`.

overview.svg and attention.svg belong to docs/method.md, order.svg to docs/order.md. The order that is drawn is asked of
`shards.order`, so that the picture cannot say something else than the code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shards.errors import run_main  # noqa: E402
from shards.order.permutation import locate, rank_positions, worker_positions  # noqa: E402

PAPER, OURS, PLAIN, LINE, TEXT = "#cfe0f5", "#ffd9a8", "#eeeeee", "#333333", "#111111"
SHARDS = ("#bcd9f7", "#c9ecc0", "#f7d2c4")  # of the figure of the order
SAMPLES, SHARD, BATCH = 12, 4, 4


class Drawing:
    """An SVG on a white ground, readable on dark pages too."""

    def __init__(self, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="15">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{LINE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]

    def text(self, x: float, y: float, words: str, size: int = 15, anchor: str = "middle", weight: str = "") -> None:
        """Words around (x, y), the middle of their first line; a newline begins another line."""
        bold = ' font-weight="bold"' if weight else ""
        for number, line in enumerate(words.split("\n")):
            self._parts.append(
                f'<text x="{x:g}" y="{y + size * 0.35 + number * size * 1.2:g}" font-size="{size}" fill="{TEXT}" '
                f'text-anchor="{anchor}"{bold}>{escape(line)}</text>'
            )

    def steep(self, x: float, y: float, words: str) -> None:
        """Words that go up from (x, y), for the columns of a matrix."""
        self._parts.append(
            f'<text transform="translate({x:g} {y:g}) rotate(-60)" font-size="12" fill="{TEXT}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, words: str, fill: str, size: int = 15) -> None:
        """A box with words in its middle."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{LINE}"/>'
        )
        lines = words.count("\n")
        self.text(x + width / 2, y + height / 2 - lines * size * 0.6, words, size)

    def cell(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A rectangle without words, of a matrix."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="#999999" '
            'stroke-width="0.6"/>'
        )

    def arrow(self, *points: tuple[float, float], words: str = "", above: float = 10) -> None:
        """A line through the points, with a tip at its end and words above the middle of its first part."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" marker-end="url(#tip)"/>')
        if words:
            (x0, y0), (x1, y1) = points[:2]
            self.text((x0 + x1) / 2, (y0 + y1) / 2 - above, words, 12)

    def svg(self) -> str:
        """The whole file."""
        return "\n".join([*self._parts, "</svg>\n"])


def overview() -> str:
    """Figure 1: from two images to a sentence."""
    d = Drawing(1160, 400)
    d.box(15, 60, 85, 60, "before", PLAIN)
    d.box(15, 170, 85, 60, "after", PLAIN)
    d.box(145, 60, 105, 170, "backbone\n(frozen),\none for\nboth images", PLAIN)
    d.arrow((100, 90), (145, 90))
    d.arrow((100, 200), (145, 200))
    d.box(305, 60, 110, 75, "regions:\nT peaks of\nan image", OURS)
    d.box(455, 60, 110, 75, "matching\nbetween the\nimages", OURS)
    d.box(305, 165, 260, 65, "projection of every cell\n(T = N)", PAPER)
    d.text(435, 150, "or", 14)
    d.arrow((250, 97), (305, 97), words="N x F")
    d.arrow((250, 197), (305, 197), words="N x F")
    d.arrow((415, 97), (455, 97), words="T x d")
    d.arrow((565, 97), (625, 97), words="2T x d")
    d.arrow((565, 197), (625, 197), words="2N x d")
    d.box(625, 60, 115, 170, "image\ndifference\nencoder:\none block an\nimage, one\nover both", PAPER)
    d.box(825, 25, 105, 225, "cross-modal\ntransformer", PAPER)
    d.arrow((740, 145), (825, 145), words="(2T+2) x d")
    d.box(825, 305, 105, 50, "words so far", PLAIN)
    d.arrow((877, 305), (877, 250))
    d.text(887, 277, "L x d", 12, "start")
    heads = (("word head", PAPER), ("pointer", OURS), ("changed head", PAPER), ("feature head\n(MVCL only)", PAPER))
    for y, (words, fill) in zip((30, 85, 145, 200), heads, strict=True):
        d.box(980, y, 125, 42, words, fill, 14)
        d.arrow((930, y + 21), (980, y + 21))
    d.arrow((1105, 51), (1135, 51), (1135, 330), (1085, 330))
    d.arrow((1105, 106), (1135, 106), (1135, 330), (1085, 330))
    d.box(965, 305, 120, 50, "next word", PLAIN)
    d.arrow((965, 330), (930, 330))
    d.box(15, 340, 22, 16, "", PAPER)
    d.text(45, 348, "of the paper", 14, "start")
    d.box(145, 340, 22, 16, "", OURS)
    d.text(175, 348, "ours", 14, "start")
    d.text(15, 20, "From two images to a sentence", 17, "start", "bold")
    d.text(15, 378, "N cells of F channels, T visual tokens an image, L words, width d", 13, "start")
    return d.svg()


def attention() -> str:
    """Figure 2: who attends to whom; a row looks at the filled columns."""
    d = Drawing(1130, 330)
    pair = [("cls before", 1), ("before", 3), ("cls after", 1), ("after", 3)]
    text = [("text", 5)]
    everything = [*pair, ("cls text", 1), *text]
    photo = [("cls before", 1), ("photo", 3), ("cls after", 1), ("cls text", 1), *text]
    panels = (
        ("single-image block", pair, _same_image),
        ("pre-training", everything, lambda query, key, row, column: True),
        ("captioning", [*pair, *text], _captioning),
        ("one photo, pre-training", photo, lambda query, key, row, column: True),
    )
    unit, x = 14, 105
    for title, groups, sees in panels:
        names = [name for name, count in groups for _ in range(count)]
        size = unit * len(names)
        d.text(x + size / 2, 18, title, 15, weight="bold")
        for row, query in enumerate(names):
            for column, key in enumerate(names):
                fill = "#5b8fd0" if sees(query, key, row, column) else "#ffffff"
                d.cell(x + unit * column, 100 + unit * row, unit, unit, fill)
        start = 0
        for name, count in groups:
            middle = unit * (start + count / 2)
            d.text(x - 6, 100 + middle, name, 12, "end")
            d.steep(x + middle + 4, 94, name)
            start += count
        x += size + 92
    d.text(15, 316, "A row looks at the filled columns. Padding is looked at by nobody.", 13, "start")
    return d.svg()


def _same_image(query: str, key: str, row: int, column: int) -> bool:
    return query.split()[-1] == key.split()[-1]


def _captioning(query: str, key: str, row: int, column: int) -> bool:
    return key != "text" or (query == "text" and column <= row)


def order() -> str:
    """The order of 12 samples, and who reads them on two machines of other sizes."""
    d = Drawing(900, 390)
    width, left = 58, 180

    def row(y: float, title: str, samples: Sequence[int], words: Sequence[str] = ()) -> None:
        d.text(left - 12, y + 17, title, 14, "end")
        for place, sample in enumerate(samples):
            shown = words[place] if words else str(sample)
            d.box(left + width * place, y, width - 4, 34, shown, SHARDS[sample // SHARD], 14)

    row(40, "on disk", range(SAMPLES))
    for shard in range(SAMPLES // SHARD):
        d.text(left + width * (SHARD * shard + 2) - 2, 22, f"shard {shard}", 13)
    positions = range(SAMPLES)
    samples = [int(locate(position, SAMPLES, 0)[1]) for position in positions]
    row(120, "epoch 0, in order", samples)
    d.arrow((left + 6 * width, 78), (left + 6 * width, 114))
    d.text(left + 6 * width + 10, 96, "permutation of (seed, epoch)", 13, "start")
    for step in range(SAMPLES // BATCH):
        d.text(left + width * (BATCH * step + 2) - 2, 174, f"step {step}", 13)
    for y, world, workers in ((210, 2, 2), (290, 4, 1)):
        readers = [""] * SAMPLES
        for step in range(SAMPLES // BATCH):
            for rank in range(world):
                mine = rank_positions(step * BATCH, BATCH, world, rank)
                for worker in range(workers):
                    for position in worker_positions(mine, workers, worker):
                        readers[position] = f"r{rank} w{worker}"
        row(y, f"{world} ranks, {workers} worker{'s' * (workers > 1)}", samples, readers)
    told = "r: rank, w: its loader worker. A step holds the same samples in both rows; its readers differ."
    d.text(15, 364, told, 14, "start")
    return d.svg()


FIGURES = {"overview": overview, "attention": attention, "order": order}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/figures.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/img"), help="a folder (default: %(default)s)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        (out / f"{name}.svg").write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_main(main)
