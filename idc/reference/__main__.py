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

import torch

from idc.reference import checkpoints
from idc.reference.parity import ReferenceFileError, check


def _device(name: str) -> torch.device:
    """ReferenceFileError for a device that is not there."""
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ReferenceFileError(f"--device {name}: nothing can be computed there ({reason})") from None


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m idc.reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="a .npz file of reference numbers to compare with")
    parser.add_argument("--device", default="cpu", help="where it is computed, such as cuda (default: cpu)")
    checkpoints.add_arguments(parser)
    given = parser.parse_args(arguments)
    if given.imported or given.exported:
        return checkpoints.run(given)
    try:
        if given.file is None:
            raise ReferenceFileError("name a .npz file, or --import or --export (see --help)")
        comparisons = check(given.file, _device(given.device))
    except ReferenceFileError as error:
        print(error, file=sys.stderr)
        return 2
    for comparison in comparisons:
        print(comparison)
    failed = sum(not comparison.passed for comparison in comparisons)
    print(f"{len(comparisons)} quantities compared, {failed} past their bound")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
