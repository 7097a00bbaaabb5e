"""python -m cluster.compare RUN RUN...: runs side by side, a table here and a page to look at and to pass on.

RUN: a folder of runs/ that was evaluated, NAME-seeds for all seeds of one configuration, or an evaluation inside of
either. All must have been scored on the same pairs under the same protocol.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from shards.errors import DataError, Parser, run_main
from shards.format.out_file import require_place, write_out


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="cluster.compare", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, two or more")
    parser.add_argument("--shards", metavar="DIR", help="the images (default: data/NAME beside runs/)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: compare-RUN-RUN.html, here)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = make_parser().parse_args(arguments)
    if len(given.runs) < 2:
        raise DataError("one RUN cannot be compared: name two or more")
    name = "-".join(["compare", *(run.resolve().name for run in given.runs)]) + ".html"
    out = require_place(given.out or Path(name))
    from cluster.report.comparison import comparison_page
    from cluster.scoring.runs import captions, find_shards, read_methods, rows
    from cluster.scoring.shown import table
    from shards.progress import busy

    methods = read_methods(given.runs)
    shards = find_shards(methods, given.shards)
    with busy(f"comparing {' and '.join(method.label for method in methods)}", announced=False):
        text = comparison_page(methods, captions(methods, shards), shards)
    write_out(out, text)
    print(table([["", *(f"{method.label} ({len(method.runs)})" for method in methods)], *rows(methods)]))
    print(f"{out}: {len(text) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    run_main(main)
