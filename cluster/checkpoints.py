"""Lists, checks and exports the checkpoints of a run.

python -m cluster.checkpoints ls runs/blocks
python -m cluster.checkpoints verify runs/blocks
python -m cluster.checkpoints export runs/blocks --step 600 --out models/early
python -m cluster.checkpoints export runs/blocks --out models/blocks --onnx --push OWNER/NAME
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from shards.errors import Parser, run_main


def main(arguments: Sequence[str]) -> int:
    """The command line; 1 if a checkpoint is damaged."""
    parser = Parser(prog="cluster.checkpoints", description="Lists, checks and exports the checkpoints of a run.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="a line for each checkpoint of a run")
    verifying = commands.add_parser("verify", help="reads every byte of the checkpoints of a run, or of one")
    exporting = commands.add_parser("export", help="makes a model folder of a checkpoint: what idc.caption loads")
    for command in (listing, exporting):
        command.add_argument("run", type=Path, help="run folder, runs/NAME")
    verifying.add_argument("folder", type=Path, help="run folder, runs/NAME, or folder of one checkpoint")
    exporting.add_argument("--stage", default="finetune", help="training stage (default: %(default)s)")
    exporting.add_argument("--step", type=int, help="of the checkpoint (default: the one that the run keeps as best)")
    exporting.add_argument("--out", type=Path, required=True, help="folder to make")
    exporting.add_argument("--onnx", action="store_true", help="ONNX graphs too, compared with PyTorch on test pairs")
    exporting.add_argument("--push", metavar="OWNER/NAME", default="", help="send the folder to the Hugging Face hub")
    options: argparse.Namespace = parser.parse_args(arguments)
    from cluster.sharing import kept  # takes seconds, as torch does: not for --help

    if options.command == "ls":
        return kept.list_checkpoints(options.run)
    if options.command == "verify":
        return kept.verify(options.folder)
    return kept.export(options)


if __name__ == "__main__":
    run_main(main)
