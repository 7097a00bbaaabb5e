"""Faults that come again, and asks to stop while no step is under way; `tests/cluster/test_train.py` has the others."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.config.options import override
from cluster.errors import Stopped, TrainingError
from cluster.launch import asked, ray_train
from cluster.training.job import Job


def restarts(folder: Path) -> list[dict]:
    path = folder / "restarts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def job(tiny: Any, folder: Path, *options: tuple[str, str]) -> Job:
    """Pre-training alone, of few steps, in an empty run folder."""
    folder.mkdir(parents=True)
    config = override(tiny.config, [("cluster.gpus_per_worker", "0"), ("pretrain.steps", "2"), ("name", folder.name),
                                    *options])  # fmt: skip
    return Job(config, folder, tiny.shards, tiny.features, ("pretrain",))


@pytest.mark.ray
def test_the_same_fault_at_the_same_step_ends_the_run(head: str, tiny: Any, tmp_path: Path) -> None:
    """A file in the place of the checkpoints' folder: an error of the file system that comes again."""
    folder = tmp_path / "run"
    failing = job(tiny, folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "pretrain").touch()
    with pytest.raises(TrainingError, match=r"(?s)training failed, worker \d: \w+Error.*traceback: .*failure\.txt.*; "
                       r"at pretrain step 2, not started again: .* the same as at the failure before"):  # fmt: skip
        ray_train.fit(failing)
    (line,) = restarts(folder)
    assert line["reached"] == ["pretrain", 2] and "restart 1 of 3" in line["line"]


@pytest.mark.ray
def test_an_ask_between_steps_ends_the_run_at_once(head: str, tiny: Any, tmp_path: Path) -> None:
    """While workers start, nothing is to be kept: they are not waited for."""
    folder = tmp_path / "run"
    waiting = job(tiny, folder, ("pretrain.steps", "100000"))

    def ask() -> None:
        while not (folder / "logs").is_dir():
            time.sleep(0.01)
        (folder / asked.FILE).touch()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with pytest.raises(Stopped, match="stopped .*as asked.*the same command goes on"):
        ray_train.fit(waiting)
    asking.join(1)
    assert not (folder / asked.FILE).exists()
