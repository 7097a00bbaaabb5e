"""Checkpoints of one stage: `step_%08d/` folders that are there whole or not at all.

A folder holds `weights.safetensors` (the whole model, fp32), `optimizer-RANK-of-RANKS.safetensors` (what each rank held
of AdamW's moments, by parameter name), and COMMIT, a small JSON: stage, step, samples, how many workers at which ZeRO
stage, length and SHA-256 of each file, and the scores if the stage validated at that step. Any number of workers at any
ZeRO stage goes on from it. It is written as `step_%08d.partial` and renamed when all of it is on the disk. Nothing
points at the newest or the best: both are found by reading, so no pointer can be torn.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import DataError
from shards.format.tars import file_sha256
from shards.format.whole_files import PARTIAL, write_whole

if TYPE_CHECKING:  # who looks for checkpoints has no need of torch, which takes seconds
    from torch import Tensor

    from cluster.distributed.ranks import Ranks

COMMIT = "COMMIT"
DAMAGED = "COMMIT.damaged"  # of a checkpoint that turned out to be no use
WEIGHTS = "weights.safetensors"
_NAME = re.compile(rf"step_(\d{{8,}})({re.escape(PARTIAL)})?")


@dataclass(frozen=True)
class File:
    """A file of a checkpoint, as it was written."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What the COMMIT file of a checkpoint says. `validation`: metric -> score, where there was a validation."""

    stage: str
    step: int  # steps done, skipped ones included
    world: int
    zero_stage: int
    validation: dict[str, float | None] | None = None
    files: dict[str, File] | None = None  # every other file of the checkpoint; None: of an earlier version
    samples: int = 0  # of the stage's order that were trained on: the next one is at this position
    applied: int = 0  # steps that were not skipped: AdamW's own count
    config: str = ""  # SHA-256 of the options that decide what is learnt
    norms: dict[str, list[float]] = field(default_factory=dict)  # of the gradients of the last applied steps, by task


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint."""

    folder: Path
    commit: Commit

    @property
    def moments(self) -> list[Path]:
        """The optimiser's files; empty if an earlier version wrote them in DeepSpeed's form."""
        return [self.folder / name for name in self.commit.files or {} if name.startswith("optimizer-")]

    @property
    def weights(self) -> Path:
        """The whole model, fp32."""
        return self.folder / WEIGHTS


def find(stage_folder: Path) -> list[Checkpoint]:
    """The committed checkpoints of a stage, oldest first, as far as their files are there in full length."""
    return [found for found in map(committed, _folders(stage_folder)) if found and not lacking(found)]


def left_out(stage_folder: Path) -> list[str]:
    """A line on each checkpoint that is newer than the newest of `find`, and why it is no use."""
    lines: list[str] = []
    for folder in reversed(_folders(stage_folder)):
        found = committed(folder)
        why = lacking(found) if found else "it was not written to its end"
        if not why:
            break
        lines.insert(0, f"{folder} is left out: {why}")
    return lines


def newest_readable(stage_folder: Path, ranks: Ranks) -> Checkpoint | None:
    """The newest checkpoint whose files hold what was written into them. All ranks call it, and each reads its share.

    One that is damaged is named in a warning and loses its COMMIT, so that nothing counts on it later.
    """
    for found in reversed(ranks.share(find(stage_folder))):
        faults = [fault for fault in ranks.gather([damage(found, ranks.rank, ranks.world)]) if fault]
        if not faults:
            return found
        if ranks.first:
            logging.getLogger(__name__).warning("%s is left out: %s", found.folder, faults[0])
            os.replace(found.folder / COMMIT, found.folder / DAMAGED)
    return None


def _folders(stage_folder: Path) -> list[Path]:
    """All folders of checkpoints, committed or not, oldest first."""
    there = stage_folder.iterdir() if stage_folder.is_dir() else ()
    found = [(int(name[1]), path.name, path) for path in there if (name := _NAME.fullmatch(path.name))]
    return [path for _, _, path in sorted(found)]


def committed(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder; None if its COMMIT is not there, or is not as it was written."""
    if folder.name.endswith(PARTIAL):
        return None
    try:
        saved = json.loads((folder / COMMIT).read_bytes())
        check, files = saved.pop("sha256", None), saved.get("files")
        if check != _check(saved) and any(isinstance(one, dict) for one in (files or {}).values()):
            return None  # an earlier version kept neither this checksum nor those of files
        if files is not None:
            saved["files"] = {k: File(**one) if isinstance(one, dict) else File(one, "") for k, one in files.items()}
        return Checkpoint(folder, Commit(**saved))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def commit_text(commit: Commit) -> str:
    """What stands in COMMIT: JSON, with a checksum of its own."""
    fields = asdict(commit)
    return json.dumps(fields | {"sha256": _check(fields)}) + "\n"


def _check(fields: dict) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def lacking(found: Checkpoint) -> str:
    """Which file of a checkpoint is not there, or not as long as it was; empty: none."""
    for name, file in (found.commit.files or {}).items():
        try:
            there = (found.folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if there != file.size:
            return f"{name} has {there} bytes of {file.size}"
    return ""


def damage(found: Checkpoint, rank: int = 0, world: int = 1) -> str:
    """What is damaged in a rank's share of the files, all of which are read; empty: nothing."""
    if found.commit.files is None:
        return "its COMMIT says nothing of its files"
    for name, file in sorted(found.commit.files.items())[rank::world]:
        if file.sha256 and file_sha256(found.folder / name) != file.sha256:
            return f"{name} is damaged: its checksum is not that of its COMMIT"
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
    return max(scored, key=lambda step: scored[step]) if scored else max(scores, default=None)


def load_weights(path: Path) -> dict[str, Tensor]:
    """A model's state from a safetensors file; DataError naming the file if it cannot be read, or is not as written."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    checkpoint = committed(path.parent)
    wanted = checkpoint and (checkpoint.commit.files or {}).get(path.name)
    try:
        if wanted and wanted.sha256 and file_sha256(path) != wanted.sha256:
            raise DataError(f"{path} is damaged: its checksum is not that of {path.parent / COMMIT}")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is not a weights file that can be read ({error})") from None


def note_validation(found: Checkpoint, scores: Mapping[str, float | None]) -> None:
    """Gives a checkpoint that was committed without them the scores of its validation."""
    write_whole(found.folder / COMMIT, commit_text(replace(found.commit, validation=dict(scores))))


def thin_out(stage_folder: Path, keep: int, metric: str | None) -> None:
    """Removes all checkpoints of a stage but the newest `keep` and the best by `metric`."""
    checkpoints = find(stage_folder)
    kept = {checkpoint.folder for checkpoint in checkpoints[-keep:]}
    if metric is not None:
        top = best(stage_folder, metric)
        kept |= {top.folder} if top else set()
    for checkpoint in checkpoints:
        if checkpoint.folder not in kept:
            remove(checkpoint.folder)


def remove(folder: Path) -> None:
    """Removes a checkpoint: under another name first, so that what is left by a kill half-way is never loaded."""
    doomed = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)
