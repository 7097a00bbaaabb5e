"""Caches the grid features of a frozen backbone: a second shard folder with the same keys, arrays in place of images.

    python -m cluster.features data/blocks --out data/blocks-features

Resumable: finished tars are kept when the same command is run again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from cluster.config.fields import BackboneConfig
from shards.errors import Parser, run_main


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = Parser(prog="cluster.features", description="Caches grid features of a frozen backbone.")
    defaults = BackboneConfig()
    parser.add_argument("shards", help="folder of images made by shards.pack, or its URL")
    parser.add_argument("--out", required=True, help="folder of features to make or to finish")
    parser.add_argument("--backbone", default=defaults.name, help="timm model (default: %(default)s)")
    parser.add_argument("--weights", default="", help="local weight file (default: a pip package's, else the hub's)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=defaults.size,
        help="pixels that images are fitted into (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--strides", type=int, nargs="+", metavar="N", default=defaults.strides,
        help="levels of the model, finest first (default: 8 16 where it has both, else its last)",
    )  # fmt: skip
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is a GPU)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1,
        help="processes; on GPUs, of which each has one process, threads that decode (default: one a core)",
    )  # fmt: skip
    options: argparse.Namespace = parser.parse_args(arguments)
    from cluster.batches.feature_cache import Extraction, cache_features  # takes seconds: not for --help

    named = {"device": options.device} if options.device else {}
    extraction = Extraction(options.backbone, options.weights, tuple(options.size), tuple(options.strides), **named)
    folder = cache_features(options.shards, options.out, extraction, options.workers)
    samples = sum(shard["samples"] for shard in folder.manifest["shards"])
    made = folder.manifest["features"]
    print(
        f"{folder.path}: features of {samples} samples, {made['backbone']}, grid {made['grid']}, {made['dim']} channels"
    )


if __name__ == "__main__":
    run_main(main)
