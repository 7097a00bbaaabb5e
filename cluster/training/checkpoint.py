"""Checkpoints of one stage: `step_%08d/` folders that count only once their COMMIT file is there, written last.

A folder holds DeepSpeed's files of every rank, `weights.safetensors` (the whole model, fp32, for any number of workers
and any ZeRO stage) and COMMIT, a small JSON: stage, step, world, zero_stage and, where the stage validated at that
step, the scores. Nothing points at the newest or the best: both are found by reading, so no pointer can be torn.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.distributed.ranks import Ranks
from cluster.training.disk_space import no_space
from cluster.training.engine import Engine
from shards.errors import DataError
from shards.format.whole_files import write_whole

COMMIT = "COMMIT"
DAMAGED = "COMMIT.damaged"  # of a checkpoint that turned out to be no use
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
    files: dict[str, int] | None = None  # bytes of every other file of the checkpoint; None: of an earlier version


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
    """The committed checkpoints of a stage, oldest first, as far as their files are there in full length."""
    return [found for found in map(_committed, _folders(stage_folder)) if found and not _lacking(found)]


def left_out(stage_folder: Path) -> list[str]:
    """A line on each checkpoint that is newer than the newest of `find`, and why it is no use."""
    lines: list[str] = []
    for folder in reversed(_folders(stage_folder)):
        found = _committed(folder)
        why = _lacking(found) if found else "it was not written to its end"
        if not why:
            break
        lines.insert(0, f"{folder} is left out: {why}")
    return lines


def newest_readable(stage_folder: Path, ranks: Ranks) -> Checkpoint | None:
    """The newest checkpoint whose files hold what was written into them. All ranks call it, and each reads its share.

    One that is damaged is named in a warning and loses its COMMIT, so that nothing counts on it later.
    """
    for found in reversed(ranks.share(find(stage_folder))):
        faults = [fault for fault in ranks.gather([_fault(found, ranks.rank, ranks.world)]) if fault]
        if not faults:
            return found
        if ranks.first:
            logging.getLogger(__name__).warning("%s is left out: %s", found.folder, faults[0])
            os.replace(found.folder / COMMIT, found.folder / DAMAGED)
    return None


def _folders(stage_folder: Path) -> list[Path]:
    """All folders of checkpoints, committed or not, oldest first."""
    folders = [path for path in stage_folder.iterdir() if _NAME.fullmatch(path.name)] if stage_folder.is_dir() else []
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step_")))


def _committed(folder: Path) -> Checkpoint | None:
    try:
        return Checkpoint(folder, Commit(**json.loads((folder / COMMIT).read_bytes())))
    except (OSError, ValueError, TypeError):
        return None


def _lacking(found: Checkpoint) -> str:
    """Which file of a checkpoint is not there, or not as long as it was; empty: none."""
    for name, size in (found.commit.files or {}).items():
        try:
            there = (found.folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if there != size:
            return f"{name} has {there} bytes of {size}"
    return ""


def _fault(found: Checkpoint, rank: int, world: int) -> str:
    """What is damaged in a rank's share of the files, all of which are read; empty: nothing.

    DeepSpeed's files are zips, with a checksum of every tensor.
    """
    files = sorted(path for path in found.folder.rglob("*") if path.suffix in (".pt", ".safetensors"))
    if not any(path.suffix == ".pt" for path in files):
        return "it has no files of DeepSpeed's"
    for path in files[rank::world]:
        name = path.relative_to(found.folder)
        try:
            if path.suffix == ".pt":
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged:
                    return f"{name} is damaged in {damaged}"
            else:
                with safe_open(path, "pt"):
                    pass  # opening it compares its header with its length
        except (zipfile.BadZipFile, EOFError, SafetensorError) as error:
            return f"{name} is damaged ({error})"
    return ""


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
    try:
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
            files = {
                str(path.relative_to(folder)): path.stat().st_size
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            write_whole(folder / COMMIT, json.dumps(asdict(replace(commit, files=files))) + "\n")
            _thin_out(stage_folder, keep, metric)
    except Exception as error:
        go_on = f", or lower --{commit.stage}.keep; the same command then goes on from {_last_step(stage_folder)}"
        full = no_space(error, stage_folder.parent, _size_of_one(stage_folder.parent), go_on)
        if full is None:
            raise
        if rank == 0 and not (folder / COMMIT).exists():
            shutil.rmtree(folder, ignore_errors=True)  # half of it is of no use, and the report of it needs room
        raise full from error
    barrier(f"committing checkpoint {folder.name}")


def _last_step(stage_folder: Path) -> str:
    newest = latest(stage_folder)
    return f"step {newest.commit.step}" if newest else "the start of the stage"


def _size_of_one(checkpoints: Path) -> int:
    """Bytes of a checkpoint of the run, 0 where it has none whose size is known."""
    sizes = [sum((found.commit.files or {}).values()) for stage in checkpoints.iterdir() for found in find(stage)]
    return max(sizes, default=0)


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
