"""Workers that die, hang and are asked to stop: the run goes on by itself, or ends with one line, and loses nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.config.options import override
from cluster.errors import Stopped, TrainingError
from cluster.launch import asked, ray_train
from cluster.tracking.run_log import read_metrics
from cluster.training.checkpoint import find, latest
from cluster.training.job import Job

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 300
STEPS = 150
TIMES = ("samples_per_s", "steps_per_s", "data_wait", "memory", "seconds")


def command(tiny: Any, name: str, *more: str) -> list[str]:
    """Fine-tuning alone, long enough to be disturbed, with a checkpoint every 7 steps."""
    return [
        sys.executable, "cluster/train.py", "tiny", "--stage", "finetune", "--pretrain.steps", "0", "--name", name,
        "--root", str(tiny.root), "--log.wandb", "disabled", "--data.pack_workers", "1", "--finetune.validate_every",
        "0", "--finetune.steps", str(STEPS), "--finetune.checkpoint_every", "7", *more,
    ]  # fmt: skip


def run(tiny: Any, name: str, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(tiny, name, *more), cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip


def losses(folder: Path) -> list[dict]:
    return [{name: value for name, value in one.items() if name not in TIMES} for one in read_metrics(folder)]


def restarts(folder: Path) -> list[dict]:
    path = folder / "restarts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def process_of(folder: Path, rank: int) -> int:
    """The process that is this rank now, as the newest head line of its log says."""
    return int(re.findall(rf"^--- .* rank {rank} on .*, process (\d+),", log(folder, rank), re.MULTILINE)[-1])


def log(folder: Path, rank: int) -> str:
    return (folder / "logs" / f"rank_{rank}.log").read_text()


def reached(folder: Path) -> int:
    return max((record["step"] for record in read_metrics(folder)), default=0)


def wait(what: Callable[[], object], driver: subprocess.Popen, said: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not what():
        assert driver.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.005)


@pytest.mark.ray
def test_kill_9_a_hang_and_an_ask_to_stop_leave_the_curve_as_it_is(tiny: Any) -> None:
    """One run: kill -9 of a worker, SIGSTOP of the other, then SIGTERM at the driver; the same command finishes it."""
    assert run(tiny, "calm").returncode == 0
    calm, folder, said = tiny.root / "runs" / "calm", tiny.root / "runs" / "disturbed", tiny.root / "disturbed.txt"
    with said.open("wb") as output:
        driver = subprocess.Popen(
            command(tiny, "disturbed", "--cluster.timeout_s", "20"), cwd=ROOT, stdout=output, stderr=output
        )
        wait(lambda: reached(folder) >= 10, driver, said)
        os.kill(process_of(folder, 1), signal.SIGKILL)
        wait(lambda: len(restarts(folder)) == 1 and reached(folder) >= 40, driver, said)
        stopped = process_of(folder, 0)
        os.kill(stopped, signal.SIGSTOP)
        froze = time.monotonic()
        wait(lambda: len(restarts(folder)) == 2, driver, said)
        assert time.monotonic() - froze < 40, "found within the limit of 20 s"
        wait(lambda: reached(folder) >= 80, driver, said)
        driver.send_signal(signal.SIGTERM)
        sent, at = time.monotonic(), reached(folder)
        assert driver.wait(60) == 85, said.read_text()
        assert time.monotonic() - sent < 30
    killed, hung = restarts(folder)
    assert re.match(r"worker 1 on \S+, process \d+, died at finetune step \d+: goes on from finetune step \d+ in 1 s, "
                    r"restart 1 of 3$", killed["line"])  # fmt: skip
    assert re.match(r"worker 0 on \S+, process \d+, does not answer for \d+ s at finetune step \d+: goes on from "
                    r"finetune step \d+ in 2 s, restart 2 of 3$", hung["line"])  # fmt: skip
    assert 40 <= hung["reached"][1] <= STEPS and hung["reached"][0] == "finetune"
    assert not psutil.pid_exists(stopped), "the worker that hung was killed"
    text = said.read_text()
    assert killed["line"] in text and hung["line"] in text and "Traceback" not in text
    step = int(re.search(r"^stopped at finetune step (\d+) as asked, checkpoint committed; the same command goes on$",
                         text, re.MULTILINE)[1])  # fmt: skip
    assert step == reached(folder) == latest(folder / "checkpoints" / "finetune").commit.step < STEPS
    assert step - at <= 60, "a few steps after the ask"
    # What every rank said in every attempt is there, and where the living one stood while the other hung.
    assert [log(folder, rank).count(f" rank {rank} on ") for rank in (0, 1)] == [3, 3]
    stacks = log(folder, 1).partition("--- where all threads of this process stand, because worker 0 on ")[2]
    assert "train_step" in stacks and "stage.py" in stacks

    again = run(tiny, "disturbed")
    assert again.returncode == 0, again.stderr
    assert losses(folder) == losses(calm), "the log is that of a run that was never disturbed"
    ends = [find(one / "checkpoints" / "finetune")[-1].weights.read_bytes() for one in (folder, calm)]
    assert ends[0] == ends[1], "and so are the weights, bit by bit"


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
    none = dataclasses.replace(failing, config=override(failing.config, [("cluster.restarts", "0")]))
    with pytest.raises(TrainingError, match="at pretrain step 2, --cluster.restarts: no restarts are used up"):
        ray_train.fit(none)
    assert len(restarts(folder)) == 1


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
