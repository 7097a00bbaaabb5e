"""Goodput is of steps that count, and null with a reason where nobody knows."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from cluster.config.options import override
from cluster.recipes.registry import RECIPES
from cluster.tracking import goodput
from cluster.tracking.run_log import RunLog


def log(run: Path) -> RunLog:
    return RunLog(run, override(RECIPES["tiny"](), [("log.wandb", "disabled")]))


def line(stage: str, step: int, rate: float | None) -> dict:
    return {"stage": stage, "step": step, "task": "mlm", "loss": {"mlm": 1.5}, "steps_per_s": rate}


def began(run: Path, *seconds_ago: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    times = [(now - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds") for seconds in seconds_ago]
    (run / "provenance.json").write_text(json.dumps([{"time": time} for time in times]))


def test_a_step_that_was_done_twice_counts_once_and_all_pauses_count_as_time(tmp_path: Path) -> None:
    began(tmp_path, 200, 60)  # two commands
    first = log(tmp_path)
    for step in (10, 20, 30):
        first.write(line("pretrain", step, 2.0))
    again = log(tmp_path)
    again.rewind("pretrain", 20)
    for step, rate in ((30, 1.0), (35, None), (40, 0.5)):  # 35: a line of a step that was left out, without a speed
        again.write(line("pretrain", step, rate))
    again.write({"stage": "pretrain", "step": 40, "validation": {"CIDEr": 1.0}, "seconds": 9})
    again.write(line("finetune", 10, 1.0))
    goodput.note(tmp_path)
    value, why = goodput.read(tmp_path)
    assert why == "" and value == pytest.approx((5 + 5 + 10 + 20 + 10) / 200, rel=0.02)


def test_what_is_not_known_is_null_with_a_reason(tmp_path: Path) -> None:
    log(tmp_path).write(line("pretrain", 10, 0.1))
    goodput.note(tmp_path)
    assert goodput.read(tmp_path)[0] is None and "goodput.json is not there" in goodput.read(tmp_path)[1]
    began(tmp_path, 20)
    goodput.note(tmp_path)
    value, why = goodput.read(tmp_path)
    assert value is None and why.startswith("100 s of steps in 2") and why.endswith(" s: a clock was changed")
