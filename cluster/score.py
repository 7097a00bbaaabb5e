"""python -m cluster.score PREDICTIONS... --shards DIR --protocol NAME: anybody's captions under a protocol with a name.

PREDICTIONS: files of captions (JSON, JSON lines, CSV, TSV, the COCO results format), one caption for each pair of the
split. --against: files of another method, compared pair by pair. A table is printed; the JSON file has everything.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from shards.errors import DataError, Parser, run_main
from shards.format.manifest import SPLITS
from shards.format.out_file import require_place, write_out

PROTOCOLS = (  # the rows of `cluster.evaluation.protocol.NAMED`, which takes a second to import
    "coco", "split", "clevr_change", "spot_the_diff/single", "spot_the_diff/multi", "levir_cc", "image_editing_request",
)  # fmt: skip
EXTRAS = ("SPICE", "BERTScore", "CLIPScore")  # likewise those of `idc.metrics.extras`


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="cluster.score", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("captions", nargs="+", type=Path, metavar="PREDICTIONS", help="files of captions")
    parser.add_argument("--shards", required=True, metavar="DIR", help="the packed data set, or its URL")
    parser.add_argument("--split", choices=SPLITS, default="test", help="that was captioned (default: %(default)s)")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="coco", metavar="NAME",
        help=f"{', '.join(PROTOCOLS)} (default: %(default)s); docs/comparing.md",
    )  # fmt: skip
    parser.add_argument("--against", nargs="+", type=Path, default=[], metavar="FILE", help="another method's captions")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N pairs of the split alone")
    parser.add_argument(
        "--extras", nargs="+", choices=EXTRAS, default=[], metavar="NAME", help=f"also {', '.join(EXTRAS)}"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: PREDICTIONS with the ending .PROTOCOL.json")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = make_parser().parse_args(arguments)
    if given.limit < 0:
        raise DataError(f"--limit is {given.limit}: it must be 0 (all pairs) or more")
    out = require_place(given.out or given.captions[0].with_suffix(f".{given.protocol.replace('/', '-')}.json"))
    if out in (*given.captions, *given.against):
        raise DataError(f"--out: {out} is a file of captions: name another")
    from cluster.scoring.scored import Asked, other_data, score_files
    from cluster.scoring.shown import shown
    from shards.progress import busy
    from shards.reading.reader import Folder

    asked = Asked(
        tuple(given.captions), given.shards, given.split, given.protocol, tuple(given.against), given.limit,
        tuple(given.extras),
    )  # fmt: skip
    with busy(f"scoring {', '.join(map(str, (*given.captions, *given.against)))}", announced=False):
        found = score_files(asked)
    write_out(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(shown(found))
    if note := other_data(found, Folder.open(given.shards)):
        print(note)
    print(out)
    return 0


if __name__ == "__main__":
    run_main(main)
