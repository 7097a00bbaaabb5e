"""The rehearsal before step 1: nothing remains of it, and what cannot work is said in one line."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from testing.models.engines import BATCH, GROUP, TASKS, make_batch, make_engine
from testing.multirank import run_ranks

pytestmark = pytest.mark.ranks
ROOM = 300 * 2**20  # bytes


def batch_of(task: str, group: int, generator: Any) -> Any:
    """Two micro-batches, alike in shape on all ranks."""
    from cluster.batches.batches import StepBatch
    from idc.losses.objectives import prepare

    group = group if task in ("mvcl", "classify") else 0
    parts = [prepare(task, make_batch(task, generator), group=group, hidden=200) for _ in range(2)]
    return StepBatch(task, parts, 4 * BATCH)


def curve(zero: int, rehearsed: bool) -> list[tuple]:
    """(losses, gradient norm) of all tasks, contrasts in groups and over the whole batch, and of one step more."""
    import torch

    from cluster.training.rehearsal import rehearse_step
    from cluster.training.step import read, train_step

    engine, stage = make_engine(zero, dropout=0.2)
    whole = dataclasses.replace(stage, contrastive_group=0)
    generator = torch.Generator().manual_seed(1)
    drawn = [(task, stage) for task in TASKS] + [("mvcl", whole), ("classify", whole)]
    steps = [(batch_of(task, one.contrastive_group, generator), one) for task, one in drawn]
    state = torch.get_rng_state()
    if rehearsed:
        for batch, one in steps:
            rehearse_step(engine, batch, one, "pretrain")
        assert torch.equal(state, torch.get_rng_state())
        assert all(weight.grad is None for weight in engine.model.parameters())
    found = []
    for number, (batch, one) in enumerate([*steps, steps[0]]):
        found += read(engine, [train_step(engine, batch, one, 1e-3, seed=number)])
    engine.close()
    return found


def curves() -> dict[int, list]:
    return {zero: [curve(zero, rehearsed) for rehearsed in (False, True)] for zero in (0, 1, 2, 3)}


def test_losses_are_the_same_bit_by_bit_at_every_zero_stage() -> None:
    for rank in run_ranks(2, curves):
        for zero, (without, after) in rank.items():
            assert len(without) == 8 and without == after, f"ZeRO {zero}"


def starved() -> tuple[str, str, bool]:
    """What is said where memory is short, and where shapes do not fit; whether the engine trains on afterwards."""
    import resource
    from pathlib import Path

    import torch

    from cluster.errors import ConfigError, TrainingError
    from cluster.training.rehearsal import rehearse_step
    from cluster.training.step import train_step

    engine, stage = make_engine(1)
    stage = dataclasses.replace(stage, micro_batch_size=32, global_batch_size=64)
    generator = torch.Generator().manual_seed(1)
    good = batch_of("mvcl", GROUP, generator)
    large = [{name: torch.cat(400 * [value]) for name, value in part.items()} for part in good.micro_batches]
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
    with pytest.raises(ConfigError) as short:
        rehearse_step(engine, dataclasses.replace(good, micro_batches=large), stage, "pretrain")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wrong = [{**part, "before": part["before"][..., 1:]} for part in good.micro_batches]
    with pytest.raises(TrainingError) as unlike:
        rehearse_step(engine, dataclasses.replace(good, micro_batches=wrong), stage, "pretrain")
    rehearse_step(engine, good, stage, "pretrain")
    norm = train_step(engine, good, stage, 1e-3).result.grad_norm
    return str(short.value), str(unlike.value), bool(norm.isfinite() and norm > 0)


def test_short_memory_and_wrong_shapes_are_one_line() -> None:
    ((short, unlike, trains),) = run_ranks(1, starved)
    assert short.startswith(
        "pretrain does not fit into the memory of cpu: a micro-batch of 32 samples of the task mvcl"
    )
    assert short.endswith(f"lower --pretrain.micro_batch_size below 32, {GROUP} or more") and "\n" not in short
    assert "bytes than there is" in short
    assert unlike.startswith("pretrain cannot be trained, a step of its task mvcl fails: RuntimeError: ")
    assert trains


def test_every_task_that_is_drawn_has_its_first_step() -> None:
    from cluster.batches.schedule import TaskSchedule
    from cluster.config.fields import StageConfig
    from cluster.training.rehearsal import first_steps

    schedule = TaskSchedule(StageConfig(steps=200, ratios={"mlm": 3, "fda": 1, "mvcl": 0, "classify": 1e-9}), seed=5)
    firsts = first_steps(schedule)
    tasks = [schedule.task(step) for step in range(200)]
    assert sorted({tasks[step] for step in firsts}) == ["fda", "mlm"]
    assert [tasks.index(task) for task in dict.fromkeys(tasks)] == firsts
    assert np.all(np.diff(firsts) > 0)
