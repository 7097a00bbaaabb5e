"""The memory of a worker as it is counted, against what PyTorch counts while real workers train."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from testing.multirank import run_ranks

from cluster.config.fields import Config
from cluster.config.options import override
from cluster.distributed.devices import Placement
from cluster.planning.live_bytes import LiveBytes
from cluster.recipes.registry import RECIPES

BOUND = 0.15
SMALL_BUCKET = 200_000  # numbers; less than the model has, more than its largest matrix


def planned(*options: tuple[str, str], **model: Any) -> Config:
    """The recipe `tiny` with the sizes that its data would give."""
    config = override(RECIPES["tiny"](), [("cluster.workers", "1"), *options])
    sizes = {"vocab_size": 300, "classes": 12, "grid": (6, 8), "feature_dim": 480, "fine_channels": 40}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes | model))


def test_what_is_kept_for_the_backward_pass_is_counted() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), LiveBytes() as counter:
        weight = torch.ones(100, 100, requires_grad=True)
        hidden = (torch.ones(1000, 100) @ weight).exp().sum()
        assert counter.live == 4 * (100 * 100 + 1000 * 100 + 1000 * 100 + 1)  # the product itself is not kept
        hidden.backward()
    assert counter.peak >= 4 * 4 * 1000 * 100 / 2 and weight.grad.numel() == 10_000
    del weight, hidden
    assert counter.live == 0


def of_ranks() -> dict[int, tuple[int, int]]:
    """(bytes that are planned, bytes that were taken) of this rank at every ZeRO stage."""
    import torch.distributed as dist

    from cluster.batches.batches import StepBatch
    from cluster.planning import memory
    from cluster.planning.calibration import peak_of
    from cluster.planning.mock_batch import mock_batch
    from cluster.training import engine
    from cluster.training.step import train_step
    from idc.model.build import build

    engine.BUCKET = memory.BUCKET = SMALL_BUCKET
    config = planned(d_model=128, d_ff=512, heads=4, max_length=40)
    stage = dataclasses.replace(config.pretraining["pretrain"], ratios={"mlm": 1})
    world, found = dist.get_world_size(), {}
    for zero in (0, 1, 2, 3):
        cluster = dataclasses.replace(config.cluster, zero_stage=zero, workers=world)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            trained = engine.Engine(build(config.model), stage, cluster, torch.device("cpu"))
            batch = mock_batch("mlm", stage, config.model, config.model.cells, world)
            held = [{name: value.clone() for name, value in batch.items()} for _ in range(config.data.prefetch)]
            for _ in range(2):
                train_step(trained, StepBatch("mlm", [batch, batch], 8), stage, 1e-3)
        taken = peak_of(profiler)
        trained.close()
        del held, trained
        plan = memory.of_worker(config, stage, Placement(world, 1, 0, "fp32"), zero)
        found[zero] = plan.peak, taken
    return found


@pytest.mark.ranks
def test_memory_is_what_two_workers_take_at_every_zero_stage() -> None:
    for rank in run_ranks(2, of_ranks):
        off = {zero: plan / taken - 1 for zero, (plan, taken) in rank.items()}
        assert all(abs(value) < BOUND for value in off.values()), (off, rank)


@pytest.mark.slow
def test_a_live_backbone_is_counted() -> None:
    """Frozen it has weights alone; trained moments, gradients and activations too, fewer if these are made again."""
    from cluster.planning.memory import of_worker
    from idc.backbone.network import untrained

    live = [("backbone.name", "test_vit"), ("backbone.mode", "live"), ("backbone.size", "64,96")]
    options = {
        "frozen": live,
        "trained": [*live, ("backbone.train", "all")],
        "saving": [*live, ("backbone.train", "all"), ("backbone.checkpointing", "true")],
    }
    plans = {"cached": planned(grid=(4, 6), feature_dim=64, fine_channels=0)} | {
        name: planned(*given, grid=(4, 6), feature_dim=64, fine_channels=0) for name, given in options.items()
    }
    stage = dataclasses.replace(plans["cached"].pretraining["pretrain"], ratios={"mlm": 1})
    found = {name: of_worker(plan, stage, Placement(1, 1, 0, "fp32"), 0) for name, plan in plans.items()}
    network = untrained("test_vit", (64, 96))
    size, rest = (sum(each.nbytes for each in of) for of in (network.parameters(), network.buffers()))
    assert found["frozen"].weights - found["cached"].weights == size + rest
    assert found["frozen"].optimiser == found["cached"].optimiser
    assert found["trained"].optimiser - found["frozen"].optimiser == 2 * size
    assert found["frozen"].activations < found["saving"].activations < 0.8 * found["trained"].activations


@pytest.mark.slow  # a process that imports DeepSpeed and trains
def test_memory_and_time_of_a_whole_stage_are_measured(capsys) -> None:
    from cluster.planning.calibration import measure
    from cluster.planning.memory import of_worker

    config = planned()
    found = measure(config, "finetune", 1, 1, False, 120)
    assert not found.fault and found.seconds.keys() == {"finetune", "classify"} and min(found.seconds.values()) > 0
    plan = of_worker(config, config.finetune, Placement(1, 1, 0, "fp32"), 0)
    assert abs(plan.peak / found.peak - 1) < BOUND, json.dumps([dataclasses.asdict(plan), found.peak])
    late = measure(config, "finetune", 1, 1, False, 0.1)
    assert late.fault == "its steps were not done within 0.1 s" and not late.seconds
