"""Checks the "paper" architecture against numbers of the reference implementation: `python -m idc.reference FILE.npz`.

The file holds weights, inputs and results (float32, dropout off); docs/reference.md lists its keys. Prints a line per
quantity; exit code 1 where one is past its bound, 2 where the file cannot be used. `--device cuda` computes on a GPU,
in float32 proper (no TF32). Also translates parameter names:

    python -m idc.reference --import CKPT.pt --vocabulary dict.json --out DIR
    python -m idc.reference --export DIR --vocabulary dict.json --out CKPT.pt

turn a checkpoint of the reference implementation into a model folder and back (`idc.reference.checkpoints`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m idc.reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="a .npz file of reference numbers to compare with")
    parser.add_argument("--device", default="cpu", help="where it is computed, such as cuda (default: cpu)")
    _add_arguments(parser)
    given = parser.parse_args(arguments)
    from idc.reference import checkpoints  # these take seconds, as torch does: not for --help
    from idc.reference.parity import ReferenceFileError, check, device_of

    if given.imported or given.exported:
        return checkpoints.run(given)
    try:
        if given.file is None:
            raise ReferenceFileError("name a .npz file, or --import or --export (see --help)")
        comparisons = check(given.file, device_of(given.device))
    except ReferenceFileError as error:
        print(error, file=sys.stderr)
        return 2
    for comparison in comparisons:
        print(comparison)
    failed = sum(not comparison.passed for comparison in comparisons)
    print(f"{len(comparisons)} quantities compared, {failed} past their bound")
    return 1 if failed else 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command that are about checkpoints."""
    parser.add_argument("--import", dest="imported", type=Path, metavar="CKPT", help="make a model folder of this file")
    parser.add_argument("--export", dest="exported", type=Path, metavar="DIR", help="make a file of this model folder")
    parser.add_argument("--out", type=Path, help="what is made: a folder by --import, a file by --export")
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE", help="JSON {word: id}: read or, by --export, written"
    )
    parser.add_argument("--form", choices=("finetuned", "pretrained"), help="what --export writes (default: finetuned)")
    beside = parser.add_argument_group("by --import: what the file does not say")
    beside.add_argument("--heads", type=int, help="attention heads (default: 8)")
    beside.add_argument("--max-length", type=int, help="tokens of the longest caption (default: 40; birds: 80)")
    beside.add_argument("--backbone", help="timm model of its features (default: resnet101.tv_in1k)")
    beside.add_argument(
        "--backbone-weights", metavar="FILE", help="its weights (default: a pip package's or the hub's)"
    )
    beside.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of images (default: 224 224)")
    beside.add_argument("--strides", type=int, nargs="+", metavar="N", help="levels of the backbone (default: 32)")


if __name__ == "__main__":
    sys.exit(main())
