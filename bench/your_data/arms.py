"""The runs of the table: runs of cluster/train.py, each in a process without Ray; those that are done are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.ablations.page import timed
from cluster.config.options import show
from cluster.errors import TrainingError
from cluster.evaluation.predict import read_predictions
from cluster.launch.run_folder import CONFIG
from cluster.pipeline import PREDICTIONS, SCORES, say
from cluster.recipes.commandline import read_config
from idc.captioning.model_folder import FOLDER as MODEL_FOLDER
from shards.edits.grammar import parse
from shards.reading.reader import Folder

ROOT = Path(__file__).resolve().parents[2]
NAME = "your_data"  # of the folder below runs/ and data/
RUN_LIMIT_S = 4 * 3600.0
COMMON = {
    "cluster.workers": "1", "cluster.threads": "1", "data.pack_workers": "1", "log.wandb": "disabled",
}  # fmt: skip
OTHER = "other"  # the run that arms with --init start from


@dataclass(frozen=True)
class Arm:
    """A way to train on some pairs."""

    name: str
    label: str  # in the table
    recipe: str = "pairs"
    options: Mapping[str, str] = field(default_factory=dict)


SCRATCH = Arm("scratch", "nothing else")
INIT = Arm("init", "`--init`", options={"init": f"runs/{NAME}/{OTHER}"})
# Photos of single things with their classes, which pairs lack: the region finder learns from them first.
EXPANDED = Arm(
    "classes",
    "class photos",
    options={
        "data.words": "0", "data.classes": f"data/{NAME}/blocks", "model.regions": "12",
        "regions.ratios": "class_labels=1", "finetune.weights": "changed=0.5",
    },
)  # fmt: skip


def train(name: str, arm: Arm, root: Path, stage: str = "all", **options: str) -> Path:
    """The run folder of an arm, trained where it is not done. TrainingError where the command fails."""
    run = root / "runs" / NAME / name
    if (run / (SCORES if stage == "all" else f"{MODEL_FOLDER}/config.json")).is_file():
        say(f"{name} is done")
        return run
    words = COMMON | {"name": f"{NAME}/{name}", "root": str(root), "stage": stage} | dict(arm.options) | options
    arguments = [word for option, value in words.items() for word in (f"--{option}", value)]
    say(f"{name} begins")
    started = time.monotonic()
    command = [sys.executable, "-m", "bench.one_worker", str(os.getpid()), arm.recipe, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=RUN_LIMIT_S)
    if done.returncode:
        raise TrainingError(f"{name} ended with exit code {done.returncode}; what was wrong is said above")
    say(f"{name} took {time.monotonic() - started:.0f} s")
    return run


def figures(run: Path) -> dict:
    """What the table and its reader want to know of a finished run."""
    scores, config = json.loads((run / SCORES).read_bytes()), read_config(run / CONFIG)
    predictions = read_predictions(run / PREDICTIONS)
    stages = {name: config.stage(name) for name in config.stages}
    shards = Folder.open(Path(config.root) / config.data.shards)
    found = {
        "pairs": shards.manifest["splits"]["train"]["pair"],
        "tested": len(predictions),
        "seconds": timed(run)[0],
        "steps": {name: stage.steps for name, stage in stages.items() if stage.steps},
        "batch": config.finetune.global_batch_size,
        "init": show(config.init) if config.init else None,
        "CIDEr": scores["total"]["CIDEr"],
        "CIDEr_changed": scores["changed"]["CIDEr"],
        "changed": scores["accuracy"]["changed"],
        "unchanged": scores["accuracy"]["unchanged"],
        "constant": scores["baselines"]["constant_total"]["CIDEr"],
    }
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}


def right_kind(run: Path) -> float:
    """Percent of edited pairs whose sentence states the kind of change that was made, or that there is none."""
    predictions = read_predictions(run / PREDICTIONS)
    stated = [(parse(one["caption"]), one["change_type"]) for one in predictions]
    return round(100 * sum(change is not None and change.type == kind for change, kind in stated) / len(stated), 2)
