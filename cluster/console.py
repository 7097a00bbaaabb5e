"""What the console scripts start: the door of that name, or one line where the extra `train` is not installed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from shards.errors import USER_ERROR, run_main

DOORS = {
    "idc-pack": "shards.pack",
    "idc-verify": "shards.verify",
    "idc-audit": "shards.audit",
    "idc-show": "shards.show",
    "idc-features": "cluster.features",
    "idc-checkpoints": "cluster.checkpoints",
    "idc-train": "cluster.train",
    "idc-doctor": "cluster.doctor",
    "idc-plan": "cluster.plan",
    "idc-score": "cluster.score",
    "idc-compare": "cluster.compare",
    "idc-sweep": "tune.sweep",
}


def run() -> NoReturn:
    """Runs the command whose script this process was started by."""
    name = Path(sys.argv[0]).stem
    try:
        run_main(import_module(DOORS[name]).main)
    except ModuleNotFoundError as error:  # of the door, or of what its command imports when it comes to it
        print(
            f"{name} needs {error.name}, which is not installed: pip install 'image-difference-captioning[train]'",
            file=sys.stderr,
        )
        sys.exit(USER_ERROR)
