"""What the parts that train have in common: rendered data, seconds of a step, the figures of a finished run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import jobs
from bench.gpu.record import Record, read_json
from cluster.config.fields import Config
from cluster.recipes.commandline import parse
from cluster.tracking.run_log import read_metrics

Options = dict[str, object]

# Scenes a second that a core renders and packs, a processor of the year 2023; features of them on the GPU come on top.
SCENES_A_CORE_S = 15.0
FEWEST, MOST = 500, 40_000  # training scenes
# All that decides what is packed, whatever the recipe: its parts share one folder.
PICTURES = {
    "data.blocks.seed": 6, "data.blocks.size": "336,224", "data.blocks.supersample": 1, "data.blocks.relational": "0.0",
    "data.blocks.class_photos": 40, "data.blocks.camera": "2.0", "data.tokenizer": "sentencepiece",
}  # fmt: skip
RATE_STEPS, RATE_EVERY = 24, 4  # of a short run that learns what a step takes


class RunFailedError(RuntimeError):
    """A command that a part cannot do without failed; one line."""


class OutOfTimeError(RuntimeError):
    """A command was stopped because the time of its part was over."""


def told(record: Record, part: str, work: Callable[[Record], None]) -> None:
    """Does the work of a part; a run that failed is a failed check, and time that is over skips the rest."""
    try:
        work(record)
    except RunFailedError as error:
        record.check(part, False, str(error))
    except OutOfTimeError as error:
        record.skip(str(error), "time")


def common(record: Record) -> Options:
    """Options of every run: one process, the GPU where there is one."""
    found: Options = {"cluster.workers": 1, "cluster.gpus_per_worker": 1 if record.device == "cuda" else 0}
    return found | {"cluster.precision": "bf16"} | PICTURES


def prepared(
    record: Record, recipe: str, options: Options, seconds: float, counts: Sequence[int] | None = None
) -> tuple[Options, dict[str, Any]]:
    """Renders as many scenes as fit into the seconds, or takes those an earlier part has left, and caches features.

    counts: scenes of train, val and test, where they are fixed already. Returns the options that name them, and what
    was done. RunFailedError where it does not work.
    """
    found = counts or _largest(record.work)
    cores = len(os.sched_getaffinity(0))
    if not found:
        most = int(min(MOST, max(FEWEST, seconds * cores * SCENES_A_CORE_S)) // 100 * 100)
        found = (6, 3, 4) if record.small else (most, 300, 600)
    scenes = ",".join(map(str, found))
    data: Options = {"data.shards": f"data/bench-{scenes.replace(',', '-')}", "data.blocks.scenes": scenes}
    if record.small:
        data |= {"data.blocks.size": "64,48", "data.blocks.class_photos": 2}
    words = jobs.train_words(recipe, options | data | {"name": "data"}, record.work)
    done = jobs.command("cluster.prepare", words, record.left, record.work / f"prepare-{recipe}.log")
    require(done, "preparing the data")
    return data, {"scenes": found[0], "counts": list(found), "seconds": done.seconds}


def _largest(work: Path) -> tuple[int, ...] | None:
    """The scenes of the largest packed folder."""
    names = (path.parent.name for path in work.glob("data/bench-*/manifest.json"))
    found = (re.fullmatch(r"bench-(\d+)-(\d+)-(\d+)", name) for name in names)
    return max((tuple(map(int, one.groups())) for one in found if one), default=None)


def alone(record: Record, recipe: str, options: Options, limit: float) -> jobs.Done:
    """A run in one process without Ray; RunFailedError where it fails."""
    log = record.work / "logs" / f"{str(options['name']).replace('/', '-')}.log"
    done = jobs.command("bench.one_worker", [os.getpid(), *jobs.train_words(recipe, options, record.work)], limit, log)
    require(done, str(options["name"]))
    return done


def require(done: jobs.Done, what: str) -> None:
    """RunFailedError or OutOfTimeError where a command did not end well."""
    if done.code is None:
        raise OutOfTimeError(what)
    if not done.passed:
        raise RunFailedError(f"{what}: {done.last}")


def configuration(recipe: str, options: Mapping[str, object]) -> Config:
    """What cluster/train.py would make of these options; ConfigError for one that is impossible."""
    return parse([recipe, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]).config


def step_seconds(record: Record, recipe: str, options: Options) -> tuple[dict[str, float], float]:
    """(seconds that a step of each stage takes, seconds of a run beside its steps), by a short run.

    The first lines of each stage, with kernels still to be loaded, are left out.
    """
    steps = 4 if record.small else RATE_STEPS
    every = 1 if record.small else RATE_EVERY
    config = configuration(recipe, options)
    short: Options = {"name": f"rate-{recipe}", "stage": "train", "finetune.validate_every": 0}
    for stage in config.stages:
        if config.stage(stage).steps:
            short |= {f"{stage}.steps": steps, f"{stage}.log_every": every, f"{stage}.checkpoint_every": steps}
    shutil.rmtree(record.work / "runs" / f"rate-{recipe}", ignore_errors=True)  # an earlier command's
    done = alone(record, recipe, options | short, record.left)
    found, spent = {}, 0.0
    for stage in config.stages:
        lines = [
            line for line in read_metrics(record.work / "runs" / f"rate-{recipe}")
            if line["stage"] == stage and line.get("steps_per_s")
        ]  # fmt: skip
        if lines:
            taken = [every / line["steps_per_s"] for line in lines]
            spent += sum(taken)
            later = taken[len(taken) // 2 :]
            found[stage] = sum(later) / (every * len(later))
    return found, max(done.seconds - spent, 1.0)


def scored(run: Path) -> dict[str, Any]:
    """The figures of a run that has been scored: CIDEr, skill, accuracies; nothing where it has not."""
    scores = read_json(run / "scores.json")
    if not scores:
        return {}
    return {
        "CIDEr": {half: scores[half]["CIDEr"] for half in ("total", "changed", "unchanged")},
        "BLEU-4": scores["total"]["BLEU-4"],
        "ROUGE_L": scores["total"]["ROUGE_L"],
        "skill": scores["skill"],
        "accuracy": scores["accuracy"],
        "pairs": scores["n"]["total"],
    }
