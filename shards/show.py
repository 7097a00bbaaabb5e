"""python -m shards.show DIR: a contact sheet of a shard folder, one HTML file to look at and to pass on.

What the folder holds (counts, change types, classes, words, what was left out), then samples of every kind and split,
drawn at random: images, captions, hard negatives, labels. Images are inside the file; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from shards.checks.contact_sheet import COUNT, show
from shards.checks.page_file import page_place, write_page
from shards.errors import Parser, run_main
from shards.format.manifest import KINDS, SPLITS


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="shards.show", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", metavar="DIR", help="a shard folder of images, or the URL of one")
    parser.add_argument(
        "--out", metavar="FILE", help="the page to write (default: DIR.html beside DIR; of a URL, here)"
    )
    parser.add_argument("--split", choices=SPLITS, help="show this split alone")
    parser.add_argument("--kind", choices=KINDS, help="show this kind alone")
    parser.add_argument(
        "--count", type=int, default=COUNT, metavar="N", help="samples of each kind and split (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: %(default)s)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = make_parser().parse_args(arguments)
    out = page_place(given.folder, given.out, ".html")
    text = show(given.folder, given.split, given.kind, given.count, given.seed)
    write_page(out, text)
    return 0


if __name__ == "__main__":
    run_main(main)
