"""One gradient, whatever cuts the batch: ranks, micro-batches and ZeRO stages give the same losses and weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
from testing.models.engines import BATCH, GROUP, TASKS, make_batch, make_engine, take_step
from testing.multirank import run_ranks

pytestmark = pytest.mark.ranks

STEPS = 20


def curve(zero_stage: int, micro_batches: int, precision: str = "fp32") -> tuple[list, dict[str, Any]]:
    """(losses and gradient norm of each step, last weights): tasks change from step to step, as in a run."""
    import torch

    from cluster.distributed.ranks import Ranks
    from shards.order.permutation import rank_positions

    engine, stage = make_engine(zero_stage, precision)
    ranks, generator, steps = Ranks(60), torch.Generator().manual_seed(1), []
    for _ in range(STEPS):
        task = TASKS[int(torch.randint(len(TASKS), (), generator=generator))]
        batch = make_batch(task, generator)
        mine = rank_positions(0, BATCH, ranks.world, ranks.rank, GROUP).reshape(micro_batches, -1)
        parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in mine]
        losses, norm = take_step(engine, stage, task, parts)
        assert math.isfinite(norm)
        steps.append((task, losses, norm))
    weights = {name: tensor.numpy() for name, tensor in engine.weights().items()}
    engine.close()
    return steps, weights


def curves(cases: list[tuple[int, int, str]]) -> list:
    return [curve(*case) for case in cases]


def largest_difference(one: list, other: list, norms: bool = True) -> float:
    """Relative, over all losses and gradient norms."""
    worst = 0.0
    for (task, losses, norm), (other_task, other_losses, other_norm) in zip(one, other, strict=True):
        assert task == other_task and losses.keys() == other_losses.keys()
        pairs = [(loss, other_losses[name]) for name, loss in losses.items()] + [(norm, other_norm)] * norms
        worst = max(worst, *(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs))
    return worst


@pytest.fixture(scope="module")
def alone() -> list:
    return run_ranks(1, curves, [(0, 1, "fp32"), (1, 4, "fp32"), (3, 2, "fp32")])[0]


CASES = [(0, 1, "fp32"), (0, 2, "fp32"), (1, 2, "fp32"), (2, 2, "fp32"), (3, 1, "fp32"), (3, 2, "fp32"),
         (0, 1, "bf16"), (1, 1, "bf16"), (2, 1, "bf16"), (3, 1, "bf16"), (3, 2, "bf16")]  # fmt: skip


@pytest.fixture(scope="module")
def together() -> dict:
    ranks = run_ranks(2, curves, CASES)
    for (steps, weights), (other_steps, other_weights) in zip(*ranks, strict=True):
        assert steps == other_steps, "ranks report the same losses"
        assert all((weights[name] == other_weights[name]).all() for name in weights), "ranks end with the same weights"
    return dict(zip(CASES, ranks[0], strict=True))


@pytest.mark.parametrize("case", [case for case in CASES if case[2] == "fp32"])
def test_two_ranks_follow_the_curve_of_one(alone: list, together: dict, case: tuple) -> None:
    """20 steps of changing tasks at every ZeRO stage; 1e-6 at the first step, before rounding can build up."""
    reference, steps = alone[0][0], together[case][0]
    assert {task for task, _, _ in reference} == set(TASKS)
    assert largest_difference(steps[:1], reference[:1]) < 1e-6
    assert largest_difference(steps, reference) < 1e-5
    for name, tensor in alone[0][1].items():
        # Adam's first steps have the size of the learning rate whatever the gradient's, so signs of zeros show.
        assert abs(tensor - together[case][1][name]).max() < 1e-3, name


def test_micro_batches_change_nothing(alone: list) -> None:
    assert largest_difference(alone[1][0], alone[0][0]) < 1e-5
    assert largest_difference(alone[2][0], alone[0][0]) < 1e-5


def test_bf16_stays_near_fp32_at_every_zero_stage(alone: list, together: dict) -> None:
    for case in CASES:
        if case[2] == "bf16":
            difference = largest_difference(together[case][0], alone[0][0], norms=False)
            assert 1e-6 < difference < 0.02, (case, difference)


def test_the_zero_stages_agree_in_bf16_too(together: dict) -> None:
    """Products are made in bf16, gradients are reduced in fp32 at every stage: as close as in fp32."""
    plain = together[0, 1, "bf16"][0]
    for case in ((1, 1, "bf16"), (2, 1, "bf16"), (3, 1, "bf16")):
        assert largest_difference(together[case][0][:1], plain[:1]) < 1e-5, case
        assert largest_difference(together[case][0], plain, norms=False) < 0.02, case  # last bits grow in bf16


def norms_of_a_fine_tuning_step() -> tuple[dict[bool, float], dict[bool, float]]:
    """Gradient norms of one step, each loss by its own count and all by the scored words: the engine's, and by hand."""
    import torch

    from cluster.batches.batches import StepBatch
    from cluster.config.fields import FinetuneConfig
    from cluster.training.step import read, train_step
    from idc.losses import objectives
    from idc.losses.objectives import counts, prepare

    batch = make_batch("finetune", torch.Generator().manual_seed(3))
    count, found, expected = counts("finetune", batch), {}, {}
    for per_word in (False, True):
        engine, stage = make_engine(0)
        stage = FinetuneConfig(clip=stage.clip, contrastive_group=GROUP, per_word=per_word)
        step = StepBatch("finetune", [prepare("finetune", batch)], BATCH)
        ((_, found[per_word], *_),) = read(engine, [train_step(engine, step, stage, 0.0)])
        model = engine.model
        model.zero_grad()
        sums = {name: loss.sum for name, loss in objectives.losses(model, "finetune", batch).items()}
        loss = sum(value / count["caption" if per_word else name] for name, value in sums.items())
        loss.backward()
        expected[per_word] = float(
            torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        )
        engine.close()
    return found, expected


def test_losses_can_weigh_as_sums_do() -> None:
    """The reference adds up over the batch, so that its changed head weighs B / words of what a mean would."""
    ((found, expected),) = run_ranks(1, norms_of_a_fine_tuning_step)
    assert found == pytest.approx(expected, rel=1e-5) and abs(found[True] / found[False] - 1) > 1e-3


def poisoned(zero_stage: int) -> tuple:
    """A step whose batch is not finite on rank 0 alone, between two good ones."""
    import torch

    from cluster.distributed.ranks import Ranks

    engine, stage = make_engine(zero_stage)
    ranks, generator = Ranks(60), torch.Generator().manual_seed(1)
    weights, applied, losses = [engine.weights()], [], []
    for step in range(3):
        batch = make_batch("mlm", generator)
        if step == 1 and ranks.rank == 0:
            batch["before"][0, 0, 0] = math.nan
        found, norm = take_step(engine, stage, "mlm", [batch])
        applied.append(math.isfinite(norm))
        losses.append(found["mlm"])
        weights.append(engine.weights())
    moved = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in zip(weights, weights[1:], strict=False)]
    finite = all(bool(tensor.isfinite().all()) for tensor in weights[-1].values())
    engine.close()
    return applied, moved, finite, [math.isfinite(loss) for loss in losses]


def poisoned_everywhere() -> list[tuple]:
    return [poisoned(zero_stage) for zero_stage in (0, 1, 2, 3)]


def test_a_step_that_is_not_finite_is_skipped_by_all_ranks() -> None:
    for rank in run_ranks(2, poisoned_everywhere):
        for applied, moved, finite, losses in rank:
            assert applied == moved == losses == [True, False, True]
            assert finite
