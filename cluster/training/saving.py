"""Writes checkpoints beside the training: its next optimiser step waits for a copy of the state, and for nothing else.

A thread of each rank copies what the rank holds while the next batch passes through the network, which only reads it.
It writes the copy and makes sure that it is on the disk; then the ranks meet, and rank 0
names all files in COMMIT and renames the folder. What goes wrong in any of them ends the run with its cause, at the
next step or when the next checkpoint is due.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from cluster.distributed.ranks import Ranks
from cluster.training import checkpoint
from cluster.training.checkpoint import COMMIT, WEIGHTS, Checkpoint, Commit, File
from cluster.training.disk_space import no_space
from cluster.training.engine import Engine, Snapshot
from shards.errors import DataError
from shards.format.tars import file_sha256
from shards.format.whole_files import PARTIAL, sync, sync_folder, write_whole

ABANDON_S = 30.0  # for the last checkpoint of a run that fails; ranks that are gone are not waited for


@dataclass(frozen=True)
class Written:
    """A checkpoint that has been committed, and what it took."""

    step: int
    size: int  # bytes
    seconds: float  # from the call to the commit
    blocked_s: float  # of these, how long training stood still: for the call, and a step for the copy


class Saver:
    """The checkpoints of one stage. All ranks make one, and make the same calls; at most one write is under way."""

    def __init__(
        self, stage_folder: Path, ranks: Ranks, timeout_s: float, keep: int, metric: str | None = None
    ) -> None:
        """`ranks`: a group that nothing else uses, for a thread meets on it. `keep`, `metric`: see `thin_out`."""
        self._folder, self._ranks, self._timeout_s = stage_folder, ranks, timeout_s
        self._keep, self._metric = keep, metric
        self._writing: _Write | None = None
        self._room: dict[str, Tensor] = {}  # for the copies: one write at a time
        if ranks.first:
            for left in stage_folder.glob(f"step_*{PARTIAL}"):  # by a run that was killed
                shutil.rmtree(left)
        ranks.barrier("clearing what a killed run left half-written")

    def save(self, engine: Engine, commit: Commit) -> Written | None:
        """Begins to write the state as it is now; what `finish` returns of the write before."""
        started = time.perf_counter()
        before = self.finish()
        snapshot = engine.snapshot(self._ranks.first, self._room)
        world, stage = self._ranks.world, engine.zero_stage
        commit = replace(commit, world=world, zero_stage=stage, applied=snapshot.applied, norms=snapshot.norms)
        self._writing = _Write(self._folder, self._ranks, snapshot, commit, self._keep, self._metric, started)
        self._writing.called_s = time.perf_counter() - started
        return before

    def check(self) -> Written | None:
        """The write that has ended since the last call. Raises what went wrong with it; does not wait."""
        return self.finish() if self._writing is not None and not self._writing.is_alive() else None

    def finish(self) -> Written | None:
        """Waits for the write under way, if there is one. Raises what went wrong with it."""
        write, self._writing = self._writing, None
        if write is None:
            return None
        write.join(self._timeout_s)
        if write.is_alive():
            raise RuntimeError(f"checkpoint {write.name} has not been written within {self._timeout_s} s")
        if write.error is not None:
            raise write.error
        blocked_s = write.called_s + write.snapshot.copies.waited_s
        return Written(write.step, write.size, write.seconds, blocked_s)

    def abandon(self) -> None:
        """Lets the write under way come to its end, in a run that ends with an error of its own."""
        if self._writing is not None:
            self._writing.join(min(self._timeout_s, ABANDON_S))


class _Write(threading.Thread):
    """One checkpoint on its way to the disk."""

    def __init__(
        self,
        stage_folder: Path,
        ranks: Ranks,
        snapshot: Snapshot,
        commit: Commit,
        keep: int,
        metric: str | None,
        started: float,
    ) -> None:
        super().__init__(name=f"step_{commit.step:08d}", daemon=True)
        self._stage_folder, self._ranks, self.snapshot, self._commit = stage_folder, ranks, snapshot, commit
        self._keep, self._metric, self._since = keep, metric, started
        self.step, self.size, self.seconds = commit.step, 0, 0.0
        self.called_s = 0.0  # how long the call took that began it
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.size = self._write()
            self.seconds = time.perf_counter() - self._since
        except Exception as error:
            self.error = error

    def _write(self) -> int:
        final = self._stage_folder / self.name
        folder = final.with_name(final.name + PARTIAL)
        ranks = self._ranks
        files: dict[str, File] = {}
        fault: Exception | None = None
        try:
            self.snapshot.copies.make()
        except Exception as error:
            fault = error
        weights = self._whole_weights()  # the ranks meet in it, whatever has happened
        try:
            if fault is not None:
                raise fault
            folder.mkdir(parents=True, exist_ok=True)
            if ranks.first:
                files[WEIGHTS] = _write_tensors(weights, folder / WEIGHTS)
            if self.snapshot.moments:
                name = f"optimizer-{ranks.rank:05d}-of-{ranks.world:05d}.safetensors"
                files[name] = _write_tensors(self.snapshot.moments, folder / name)
        except Exception as error:
            fault = self._named(error)
        told = ranks.gather([(files, fault)])
        faults = [one for _, one in told if one is not None]
        if not faults and ranks.first:
            files = {name: file for one, _ in told for name, file in one.items()}
            try:
                self._commit_files(folder, final, files)
            except Exception as error:
                faults = [self._named(error)]
        faults = ranks.share(faults)
        if faults:
            if ranks.first:
                shutil.rmtree(folder, ignore_errors=True)  # half of it is of no use, and the report of it needs room
            raise faults[0]
        return sum(file.size for one, _ in told for file in one.values())

    def _whole_weights(self) -> dict[str, Tensor]:
        """On rank 0 the model; under ZeRO 3 put together from what the ranks hold."""
        weights = self.snapshot.weights
        if self.snapshot.shapes is None:
            return weights
        parts = self._ranks.collect(self.snapshot.parts)
        for name, (held_as, shape) in self.snapshot.shapes.items() if self._ranks.first else ():
            weights[name] = torch.empty(shape)
            for start, values in (part[held_as] for part in parts if held_as in part):
                weights[name].view(-1)[start : start + len(values)] = values
        return weights

    def _commit_files(self, folder: Path, final: Path, files: dict[str, File]) -> None:
        write_whole(folder / COMMIT, checkpoint.commit_text(replace(self._commit, files=files)))
        if final.exists():  # it was damaged, or it has no COMMIT
            shutil.rmtree(final)
        os.rename(folder, final)
        sync_folder(self._stage_folder)
        checkpoint.thin_out(self._stage_folder, self._keep, self._metric)

    def _named(self, error: Exception) -> Exception:
        """The error as the run ends with it: a full disk says what to free."""
        newest = checkpoint.latest(self._stage_folder)
        last = f"step {newest.commit.step}" if newest else "the start of the stage"
        go_on = f", or lower --{self._commit.stage}.keep; the same command then goes on from {last}"
        return no_space(error, self._stage_folder.parent, _size_of_one(self._stage_folder.parent), go_on) or error


def restore(found: Checkpoint, engine: Engine) -> None:
    """Gives the engine the optimiser's state of a checkpoint, whose weights its model has already.

    Any number of workers and ZeRO stage will do. Raises DataError if it was written by an earlier version.
    """
    if not found.moments:
        raise DataError(
            f"{found.folder} was written by an earlier version, whose optimiser state cannot be read: go on with that "
            f"version, or begin a new run from its weights, --name NEW --init {found.weights}"
        )
    engine.restore(found.moments, found.commit.applied, found.commit.norms)


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> File:
    save_file(dict(tensors), path)
    with open(path, "rb") as file:
        sync(file)
    return File(path.stat().st_size, file_sha256(path))


def _size_of_one(checkpoints: Path) -> int:
    """Bytes of a checkpoint of the run, 0 if it has none whose size is known."""
    stages = [stage for stage in checkpoints.iterdir() if stage.is_dir()]
    sizes = [sum(file.size for file in (one.commit.files or {}).values()) for s in stages for one in checkpoint.find(s)]
    return max(sizes, default=0)
