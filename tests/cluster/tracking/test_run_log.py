"""metrics.jsonl is whole lines of JSON whatever happens, and the progress line follows it."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from testing.mirror_files import history, shown_by_tensorboard

from cluster.config.fields import Config, LogConfig
from cluster.config.options import override
from cluster.recipes.registry import RECIPES
from cluster.tracking.doing import Doing
from cluster.tracking.following import Progress
from cluster.tracking.run_log import METRICS, RunLog, read_metrics
from cluster.tracking.shown_pairs import ShownPair
from cluster.tracking.wandb_mirror import wandb_mode
from cluster.tracking.worker_logs import WARNINGS

PAIR = ShownPair("a", np.zeros((4, 6, 3), np.uint8), np.zeros((5, 6, 3), np.uint8), "it is gone", 0.9, ("gone",))


@pytest.fixture
def config() -> Config:
    return override(RECIPES["tiny"](), [("log.wandb", "disabled")])


def line(stage: str, step: int, **more: object) -> dict:
    speed = {"samples_per_s": 10.0, "steps_per_s": 2.0}
    return {"stage": stage, "step": step, "task": "mlm", "loss": {"mlm": 1.5}, **speed, **more}


def test_numbers_that_are_not_finite_become_null(tmp_path: Path, config: Config) -> None:
    RunLog(tmp_path, config).write(line("pretrain", 1, loss={"mlm": math.nan}, grad_norm=math.inf))
    (record,) = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert record["loss"] == {"mlm": None} and record["grad_norm"] is None


def test_a_resumed_run_drops_what_was_logged_after_its_checkpoint(tmp_path: Path, config: Config) -> None:
    log = RunLog(tmp_path, config)
    for stage, step in (("pretrain", 1), ("pretrain", 2), ("finetune", 1), ("finetune", 2), ("finetune", 3)):
        log.write(line(stage, step))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"stage": "finetune", "st')  # cut by a kill
    log.rewind("finetune", 2)
    assert [(r["stage"], r["step"]) for r in read_metrics(tmp_path)] == [
        ("pretrain", 1), ("pretrain", 2), ("finetune", 1), ("finetune", 2),
    ]  # fmt: skip
    log.rewind("pretrain", 1)
    assert len(read_metrics(tmp_path)) == 1


def test_progress_shows_stage_step_loss_and_time_left(tmp_path: Path, config: Config) -> None:
    log, out = RunLog(tmp_path, config), io.StringIO()
    log.write(line("pretrain", 1))
    with Progress(tmp_path, config, out, every=0.0) as progress:
        progress._read()
        log.write(line("pretrain", 2))
        log.write(line("finetune", 10))
        log.write({"stage": "finetune", "step": 10, "validation": {"CIDEr": 87.61, "object": None}})
    shown = out.getvalue().splitlines()
    assert shown == [
        "pretrain 2/10: mlm 1.500, 10 samples/s, 0:04 left",
        "finetune 10/10: mlm 1.500, 10 samples/s, 0:00 left",
        "finetune 10/10: validation CIDEr 87.6",
    ]


def test_progress_misses_nothing_of_a_new_run(tmp_path: Path, config: Config) -> None:
    out = io.StringIO()
    with Progress(tmp_path, config, out, every=0.0):
        RunLog(tmp_path, config).write(line("pretrain", 1))
    assert out.getvalue().startswith("pretrain 1/10: mlm 1.500")


def test_progress_of_a_resumed_run_shows_what_is_new(tmp_path: Path, config: Config) -> None:
    log, out = RunLog(tmp_path, config), io.StringIO()
    for step in (1, 2, 3):
        log.write(line("pretrain", step))
    with Progress(tmp_path, config, out, every=0.0) as progress:
        log.rewind("pretrain", 2)
        progress._read()
        log.write(line("pretrain", 3))
    assert out.getvalue().startswith("pretrain 3/10") and out.getvalue().count("\n") == 1


def test_progress_misses_nothing_of_a_stage_that_is_over_at_once(tmp_path: Path, config: Config) -> None:
    log, out = RunLog(tmp_path, config), io.StringIO()
    with Progress(tmp_path, config, out, every=0.0) as progress:
        for stage in ("pretrain", "finetune"):
            log.rewind(stage, 0)
            log.write(line(stage, 10))
        progress._read()
    assert [shown.split(":")[0] for shown in out.getvalue().splitlines()] == ["pretrain 10/10", "finetune 10/10"]


def test_progress_says_what_workers_are_at_between_steps(tmp_path: Path, config: Config) -> None:
    told, out = Doing(tmp_path), io.StringIO()
    Doing(None).at("finetune validation", 1, 100)  # of another rank
    Doing(tmp_path / "gone").at("finetune validation", 1, 100)  # a disk that fails ends nothing
    with Progress(tmp_path, config, out, every=0.0) as progress:
        for done in (32, 64, 100):
            told._written = 0.0  # as if a second had passed
            told.at("finetune validation", done, 100)
            progress._read()
    first, *others = out.getvalue().splitlines()
    assert first.startswith("finetune validation: 64 of 100 pairs, ") and first.endswith(" left") and not others
    assert not list(tmp_path.glob(".doing*")), "nothing is left when it is over"


def test_wandb_is_offline_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_mode(LogConfig()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode(LogConfig()) == "online"
    assert wandb_mode(LogConfig("disabled")) == "disabled"


@pytest.mark.slow
def test_one_wandb_run_for_a_run_folder(tmp_path: Path) -> None:
    config = override(RECIPES["tiny"](), [("log.wandb", "offline")])
    for step in (1, 2):
        log = RunLog(tmp_path, config)
        log.write(line("pretrain", step))
        log.close()
    identifier = (tmp_path / "wandb_id.txt").read_text().strip()
    # W&B adds a number to the folder of a second run within the same second.
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{identifier}*/run-{identifier}.wandb"))
    assert len(files) == 2 and all(path.stat().st_size > 0 for path in files)


UNREACHABLE = """
import sys, time
from pathlib import Path
from cluster.config.options import override
from cluster.recipes.commandline import load_recipe
from cluster.tracking.run_log import RunLog
from cluster.tracking.worker_logs import keep_warnings
run = Path(sys.argv[1])
keep_warnings(run, 0)
started = time.monotonic()
log = RunLog(run, load_recipe("tiny"))
print(time.monotonic() - started)
log.close()
started = time.monotonic()
log = RunLog(run, override(load_recipe("tiny"), [("log.wandb", "offline")]))
print(time.monotonic() - started)
log.close()
"""


@pytest.mark.slow
def test_a_key_without_a_network_costs_seconds_and_is_told_on_the_console(tmp_path: Path, config: Config) -> None:
    """W&B's host is an address of this machine at which a server takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Progress(tmp_path, config, out := io.StringIO()):
        environment = os.environ | {
            "WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", UNREACHABLE, str(tmp_path)], cwd=Path(__file__).resolve().parents[3],
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    seconds, offline = map(float, done.stdout.split())
    assert seconds < 10 + 5 * offline, "W&B itself takes a while to start on a machine that is at work"
    (said,) = out.getvalue().splitlines()
    assert said.startswith("W&B cannot be reached, the run is logged offline (wandb sync ")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb")), "what was logged can be sent later"


def test_warnings_of_workers_are_told_once_and_those_of_libraries_are_not(tmp_path: Path, config: Config) -> None:
    (tmp_path / WARNINGS).write_text("2026-01-01 00:00:00,000 worker 0 cluster.tracking.run_log: of an earlier run\n")
    with Progress(tmp_path, config, out := io.StringIO()), (tmp_path / WARNINGS).open("a") as file:
        for worker, name in ((0, "cluster.training.stage"), (1, "cluster.training.stage"), (0, "torch._inductor")):
            file.write(f"2026-01-01 00:00:01,000 worker {worker} {name}: it is so\nand more\n")
    assert out.getvalue() == "it is so\n"


@pytest.mark.slow
def test_a_resumed_run_sends_no_step_to_wandb_twice(tmp_path: Path) -> None:
    config = override(RECIPES["tiny"](), [("log.wandb", "offline")])

    def go(first: int, last: int) -> None:
        log = RunLog(tmp_path, config)
        log.rewind("pretrain", first)
        for step in range(first + 1, last + 1):
            log.write(line("pretrain", step))
        log.close()

    go(0, 4)
    go(2, 3)  # stopped before it was as far as the first
    go(2, 6)
    running = [one.name() for one in psutil.Process().children(recursive=True)]
    assert not [name for name in running if "wandb" in name], "a process that is ended before it has written all"
    sent = history(tmp_path)
    assert sent[0]["pretrain/loss/mlm/mlm"] == 1.5, "losses by task"
    assert [record["pretrain/step"] for record in sent] == [1, 2, 3, 4, 5, 6]
    assert [record["_step"] for record in sent] == [0, 1, 2, 3, 4, 5]
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]

    log = RunLog(tmp_path, config)
    log.write(
        {"stage": "finetune", "step": 1, "validation": {"CIDEr": 87.61, "object": None}},
        beside=lambda: {"goodput": 0.75}, pairs=lambda: [PAIR],
    )  # fmt: skip
    log.summarise({"goodput": 0.8})
    log.close()
    last = history(tmp_path)[-1]
    assert last["finetune/validation/CIDEr"] == 87.61 and last["goodput"] == 0.75
    assert last["finetune/pairs/_type"] == "table-file" and last["finetune/pairs/nrows"] == 1
    sent_later = [path for path in (tmp_path / "wandb/artifacts/staging").iterdir() if filetype(path) == "PNG"]
    assert sorted(Image.open(path).size for path in sent_later) == [(6, 4), (6, 5)], "both images lie with the run"


def filetype(path: Path) -> str:
    return "PNG" if path.read_bytes().startswith(b"\x89PNG") else ""


def test_tensorboard_has_each_step_of_a_resumed_run_once(tmp_path: Path, config: Config) -> None:
    config = override(config, [("log.tensorboard", "true")])

    def go(stage: str, first: int, last: int, loss: float) -> None:
        log = RunLog(tmp_path, config)
        log.rewind(stage, first)
        for step in range(first + 1, last + 1):
            log.write(line(stage, step, loss={"mlm": loss, "fda": None}))
        log.write({"stage": stage, "step": last, "validation": {"CIDEr": 1.0}}, pairs=lambda: [PAIR])
        # No close: it was killed.

    go("pretrain", 0, 10, 1.0)
    go("finetune", 0, 4, 2.0)
    go("finetune", 2, 6, 3.0)
    shown = shown_by_tensorboard(tmp_path)
    assert shown["pretrain/loss/mlm/mlm"] == [(step, 1.0) for step in range(1, 11)]
    assert shown["finetune/loss/mlm/mlm"] == [(11, 2.0), (12, 2.0), (13, 3.0), (14, 3.0), (15, 3.0), (16, 3.0)]
    assert shown["finetune/validation/CIDEr"] == [(16, 1.0)]
    assert shown["finetune/pairs/a"] == [(16, None)] and shown["finetune/pairs/a/text_summary"] == [(16, None)]
    assert "pretrain/loss/mlm/fda" not in shown, "null is no number"


@pytest.mark.slow
def test_wandb_that_breaks_ends_nothing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = override(RECIPES["tiny"](), [("log.wandb", "offline")])
    log = RunLog(tmp_path, config)
    log._mirror._run.finish()  # from now on it refuses lines
    for step in (1, 2, 3):
        log.write(line("pretrain", step))
    log.close()
    assert len(read_metrics(tmp_path)) == 3
    first, last = [text for text in caplog.messages if "did not reach W&B" in text]
    assert first.startswith("a line of metrics.jsonl did not reach W&B, training goes on: ")
    assert last.startswith("3 lines of metrics.jsonl did not reach W&B: ")


@pytest.mark.slow
def test_wandb_that_hangs_is_waited_for_less_long_than_workers_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its process is stopped, as a sick disk or network would."""
    config = override(RECIPES["tiny"](), [("log.wandb", "offline"), ("cluster.timeout_s", "8")])
    before = set(children())
    log = RunLog(tmp_path, config)
    service = [pid for pid in children() if pid not in before] or children()
    for pid in service:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        log.write(line("pretrain", 1))
        log.close()
        assert time.monotonic() - started < 8
    finally:
        for pid in service:
            os.kill(pid, signal.SIGCONT)
    assert any("W&B did not end within 2 s" in text for text in caplog.messages)
    log._mirror._thread.join(60)


def children() -> list[int]:
    """The processes that this one has started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
