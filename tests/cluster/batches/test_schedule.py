"""The course of a stage is a pure function of (seed, step)."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.batches.schedule import TaskSchedule, learning_rate, stage_seed, step_seed
from cluster.config.fields import StageConfig, task_batch_size
from cluster.config.tasks import TASKS

RATIOS = {"mlm": 8.0, "mvcl": 1.0, "fda": 2.0, "classify": 3.0, "photo_mlm": 1.0, "photo_fda": 0.0}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**50), steps=st.integers(1, 200), batch=st.integers(1, 64), fda=st.integers(1, 16))
def test_streams_are_consumed_without_gap_or_overlap(seed: int, steps: int, batch: int, fda: int) -> None:
    stage = StageConfig(steps=steps, ratios=RATIOS, global_batch_size=batch, batch_sizes={"fda": fda})
    schedule = TaskSchedule(stage, seed)
    ends = {"pair": 0, "photo": 0, "class": 0}
    total = 0
    for step in range(steps):
        task = schedule.task(step)
        assert schedule.start(step) == ends[TASKS[task].stream]
        assert schedule.samples(step) == total
        ends[TASKS[task].stream] += task_batch_size(stage, task)
        total += task_batch_size(stage, task)
    assert schedule.samples(steps) == total


def test_more_steps_only_append() -> None:
    short = TaskSchedule(StageConfig(steps=50, ratios=RATIOS), 7)
    long = TaskSchedule(StageConfig(steps=500, ratios=RATIOS), 7)
    assert [short.task(step) for step in range(50)] == [long.task(step) for step in range(50)]
    assert [short.start(step) for step in range(50)] == [long.start(step) for step in range(50)]


def test_tasks_come_by_their_ratio() -> None:
    schedule = TaskSchedule(StageConfig(steps=20_000, ratios=RATIOS), 3)
    drawn = [schedule.task(step) for step in range(20_000)]
    for task, ratio in RATIOS.items():
        expected = 20_000 * ratio / sum(RATIOS.values())
        assert abs(drawn.count(task) - expected) <= 5 * math.sqrt(expected)  # five standard deviations


def test_seeds_differ_by_stage_step_and_rank() -> None:
    assert stage_seed(0, "pretrain") != stage_seed(0, "finetune") != stage_seed(1, "finetune")
    seeds = {step_seed(s, n, t, r) for s in (0, 1) for n in ("pretrain", "finetune") for t in (0, 1) for r in (0, 1)}
    assert len(seeds) == 16 and max(seeds) < 2**63


def test_golden_seeds() -> None:
    """Saved runs depend on these numbers."""
    assert stage_seed(0, "pretrain") == 39053526702664267
    assert step_seed(0, "pretrain", 3, 1) == 7874182648304638


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("noam", 0, 0.25), ("noam", 3, 1.0), ("noam", 15, 0.5), ("noam", 399, 0.1),
        ("cosine", 1, 0.5), ("cosine", 3, 1.0), ("cosine", 51, 0.55), ("cosine", 99, 0.1),
        ("constant", 0, 0.25), ("constant", 70, 1.0),
        ("halving", 9, 1.0), ("halving", 10, 0.5), ("halving", 19, 0.5), ("halving", 20, 0.25),
    ],
)  # fmt: skip
def test_learning_rates(schedule: str, step: int, expected: float) -> None:
    stage = StageConfig(steps=100, lr=1.0, schedule=schedule, warmup_steps=4)
    if schedule == "cosine":
        stage = dataclasses.replace(stage, lr_floor=0.1)
    if schedule == "halving":
        stage = dataclasses.replace(stage, halve_at=(10, 20))
    assert learning_rate(stage, step) == pytest.approx(expected, rel=1e-9)
