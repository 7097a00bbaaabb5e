"""Checkpoints of one stage: `step_%08d/` folders that count only once their COMMIT file is there, written last.

A folder holds DeepSpeed's files of every rank, `weights.safetensors` (the whole model, fp32, for any number of workers
and any ZeRO stage) and COMMIT, a small JSON: stage, step, world, zero_stage and, where the stage validated at that
step, the scores. Nothing points at the newest or the best: both are found by reading, so no pointer can be torn.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.training.engine import Engine
from shards.errors import DataError
from shards.format.whole_files import write_whole

COMMIT = "COMMIT"
WEIGHTS = "weights.safetensors"
_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class Commit:
    """What the COMMIT file of a checkpoint says. `validation`: metric -> score, where there was a validation."""

    stage: str
    step: int  # optimiser steps done
    world: int
    zero_stage: int
    validation: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint."""

    folder: Path
    commit: Commit

    @property
    def weights(self) -> Path:
        """The whole model, fp32."""
        return self.folder / WEIGHTS


def find(stage_folder: Path) -> list[Checkpoint]:
    """The committed checkpoints of a stage, oldest first. Folders without a whole COMMIT are passed over."""
    found = []
    for folder in stage_folder.iterdir() if stage_folder.is_dir() else ():
        if _NAME.fullmatch(folder.name):
            try:
                commit = Commit(**json.loads((folder / COMMIT).read_bytes()))
            except (OSError, ValueError, TypeError):
                continue
            found.append(Checkpoint(folder, commit))
    return sorted(found, key=lambda checkpoint: checkpoint.commit.step)


def latest(stage_folder: Path) -> Checkpoint | None:
    """The newest committed checkpoint."""
    return next(reversed(find(stage_folder)), None)


def best(stage_folder: Path, metric: str) -> Checkpoint | None:
    """The committed checkpoint with the highest score in `metric`, the earlier of equals.

    The newest where none has such a score, which is what the metric "last" is for.
    """
    found = {checkpoint.commit.step: checkpoint for checkpoint in find(stage_folder)}
    step = best_step({step: (one.commit.validation or {}).get(metric) for step, one in found.items()})
    return None if step is None else found[step]


def best_step(scores: Mapping[int, float | None]) -> int | None:
    """The step with the highest score, the earlier of equals; the newest if none has a score."""
    scored = {step: score for step, score in sorted(scores.items()) if score is not None}
    return max(scored, key=scored.get) if scored else max(scores, default=None)


def save(
    stage_folder: Path,
    engine: Engine,
    commit: Commit,
    rank: int,
    barrier: Callable[[str], None],
    keep: int,
    metric: str | None = None,
) -> None:
    """Writes and commits a checkpoint, then removes all but the newest `keep` and the best by `metric`.

    All ranks call it together; `barrier(what)` makes them wait for one another, within a time limit.
    """
    folder = stage_folder / f"step_{commit.step:08d}"
    if rank == 0:
        _remove(folder)  # what a killed run may have left half-written
        folder.mkdir(parents=True)
    barrier(f"starting checkpoint {folder.name}")
    engine.save(folder)
    weights = engine.weights()
    if rank == 0:
        save_weights(weights, folder / WEIGHTS)
    barrier(f"writing checkpoint {folder.name}")
    if rank == 0:
        write_whole(folder / COMMIT, json.dumps(asdict(commit)) + "\n")
        _thin_out(stage_folder, keep, metric)
    barrier(f"committing checkpoint {folder.name}")


def restore(checkpoint: Checkpoint, engine: Engine, world: int) -> int:
    """Loads weights and optimiser and returns the number of steps done. All ranks call it together.

    Raises DataError where the checkpoint is of another number of workers or ZeRO stage.
    """
    commit = checkpoint.commit
    if (commit.world, commit.zero_stage) != (world, engine.zero_stage):
        raise DataError(
            f"{checkpoint.folder} was written by {commit.world} workers at ZeRO stage {commit.zero_stage}, and this is "
            f"{world} at stage {engine.zero_stage}: resume with --cluster.workers {commit.world} --cluster.zero_stage "
            f"{commit.zero_stage}"
        )
    engine.load(checkpoint.folder)
    return commit.step


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    # Tied parameters share memory, which the format has no way to say: each name gets its own copy.
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, partial)
    os.replace(partial, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """A model's state from a safetensors file; DataError naming the file where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is not a weights file that can be read ({error})") from None


def _thin_out(stage_folder: Path, keep: int, metric: str | None) -> None:
    checkpoints = find(stage_folder)
    kept = {checkpoint.folder for checkpoint in checkpoints[-keep:]}
    if metric is not None:
        top = best(stage_folder, metric)
        kept |= {top.folder} if top else set()
    for checkpoint in checkpoints:
        if checkpoint.folder not in kept:
            _remove(checkpoint.folder)


def _remove(folder: Path) -> None:
    """Removes a checkpoint, its COMMIT first: what is left by a kill half-way is never loaded."""
    (folder / COMMIT).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
