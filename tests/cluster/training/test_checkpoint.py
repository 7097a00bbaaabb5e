"""A checkpoint counts only when all of it is there; the newest and the best are found by reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from testing.models.checkpoints import commit, save_weights
from testing.multirank import run_ranks

from cluster.training import checkpoint
from cluster.training.checkpoint import COMMIT
from shards.errors import DataError

LATE_S = 0.2  # that a copy is made after a step asked for it


def test_newest_and_best_are_found_by_reading(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None and checkpoint.best(tmp_path, "CIDEr") is None
    for step, score in ((10, 50.0), (20, 70.0), (30, 70.0), (40, None)):
        commit(tmp_path, step, CIDEr=score)
    assert [c.commit.step for c in checkpoint.find(tmp_path)] == [10, 20, 30, 40]
    assert checkpoint.latest(tmp_path).commit.step == 40
    assert checkpoint.best(tmp_path, "CIDEr").commit.step == 20, "the earlier of equals"
    assert checkpoint.best(tmp_path, "ROUGE_L").commit.step == 40, "no score at all: the newest"
    assert checkpoint.best(tmp_path, "last").commit.step == 40


@pytest.mark.parametrize("cut", range(0, 80, 11))
def test_a_commit_cut_at_any_byte_is_never_loaded(tmp_path: Path, cut: int) -> None:
    commit(tmp_path, 10)
    torn = commit(tmp_path, 20) / COMMIT
    whole = torn.read_bytes()
    assert len(whole) > 80
    torn.write_bytes(whole[:cut])
    assert checkpoint.latest(tmp_path).commit.step == 10
    torn.write_bytes(whole)
    assert checkpoint.latest(tmp_path).commit.step == 20
    torn.unlink()
    assert checkpoint.latest(tmp_path).commit.step == 10


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    commit(tmp_path, 10)
    (tmp_path / "step_latest").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert len(checkpoint.find(tmp_path)) == 1


def test_a_file_of_weights_that_was_cut_is_an_error(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    save_weights({"a": tied, "b": tied, "c": tied.t()}, tmp_path / "w.safetensors")
    loaded = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], tied) and torch.equal(loaded["b"], tied) and torch.equal(loaded["c"], tied.t())
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-5])
    with pytest.raises(DataError, match="w.safetensors is not a weights file"):
        checkpoint.load_weights(tmp_path / "w.safetensors")


def saved_and_left(engine: Any, ranks: Any, folder: Path) -> tuple[Any, Callable[[], None]]:
    """A write that nobody waits for, whose copy is not made before a step asks for it; and what undoes the delay."""
    from cluster.distributed.copies import Copies
    from cluster.training.checkpoint import Commit
    from cluster.training.saving import Saver

    make, wait, asked = Copies.make, Copies.wait, threading.Event()

    def late(copies: Copies) -> None:
        asked.wait(5)
        time.sleep(LATE_S)
        make(copies)

    def awaited(copies: Copies, limit_s: float) -> None:
        asked.set()
        wait(copies, limit_s)

    saver = Saver(folder, ranks, 60, 1)
    Copies.make = late
    saver.save(engine, Commit("pretrain", 3, ranks.world, engine.zero_stage))
    Copies.wait = awaited

    def undo() -> None:
        Copies.make, Copies.wait = make, wait

    return saver, undo


def save_and_restore(folder: Path, zero_stages: tuple[int, ...]) -> list[dict[str, Any]]:
    """Trains 3 steps, saves, trains 3 more; loads into a fresh engine and trains the same 3: losses must be equal.

    The 3 begin while the same state is being saved once more.
    """
    from testing.models.engines import make_engine, save, train

    from cluster.distributed.ranks import Ranks

    ranks, report = Ranks(60), []
    for zero_stage in zero_stages:
        stage_folder = folder / str(zero_stage)
        engine, stage = make_engine(zero_stage)
        train(engine, stage, range(3))
        for step in (1, 2, 3):
            save(engine, ranks, stage_folder, step, keep=2)
        left_folder = folder / f"{zero_stage} left"
        saver, undo = saved_and_left(engine, ranks, left_folder)
        undisturbed, weights = train(engine, stage, range(3, 6)), engine.weights()
        left = saver.finish()
        undo()
        engine.close()
        newest = checkpoint.latest(stage_folder)
        engine, stage = make_engine(zero_stage, found=newest)
        saved_weights = checkpoint.load_weights(newest.weights)
        same_saved = all(torch.equal(saved_weights[name], tensor) for name, tensor in engine.weights().items())
        resumed, resumed_weights = train(engine, stage, range(3, 6)), engine.weights()
        engine.close()
        waited_for, not_waited_for = (
            {file.name: file.read_bytes() for file in found.folder.glob("*.safetensors")}
            for found in (newest, checkpoint.latest(left_folder))
        )
        report.append(
            {
                "same_files": len(waited_for) == 3 and waited_for == not_waited_for,
                "stood_still": LATE_S / 2 < left.blocked_s < left.seconds,
                "commit": (newest.commit.step, newest.commit.applied, newest.commit.world, newest.commit.zero_stage),
                "kept": [c.commit.step for c in checkpoint.find(stage_folder)],
                "same_losses": undisturbed == resumed,
                "same_weights": all(torch.equal(weights[name], resumed_weights[name]) for name in weights),
                "same_saved": same_saved,
            }
        )
    return report


@pytest.mark.ranks
def test_restored_at_the_same_size_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    for rank in run_ranks(2, save_and_restore, tmp_path, (0, 1, 2, 3)):
        for zero_stage, report in enumerate(rank):
            assert report == {
                "commit": (3, 3, 2, zero_stage), "kept": [2, 3], "same_losses": True, "same_weights": True,
                "same_saved": True, "same_files": True, "stood_still": True,
            }  # fmt: skip
