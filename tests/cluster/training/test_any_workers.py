"""The same losses and weights on any number of workers: uneven shares, whole-batch contrast, accumulation; no waits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from testing.multirank import RankDied, run_ranks

from cluster.config.fields import ClusterConfig, Config, StageConfig, task_micro_batches
from cluster.recipes.registry import RECIPES

STEPS = 14


@dataclasses.dataclass(frozen=True)
class Data:
    """What the fixture `tiny` made, in a class that other processes can import."""

    config: Config
    shards: Path
    features: Path


def curve(
    tiny: Data, stage_name: str, zero_stage: int, micro_batch_size: int, group: int
) -> tuple[list, dict[str, Any]]:
    """(task, losses, gradient norm) of each step on the batches that a run would see, and the last weights."""
    import torch

    from cluster.batches.batches import Batches
    from cluster.distributed.ranks import Ranks
    from cluster.training.engine import Engine
    from cluster.training.step import read, train_step
    from idc.captioning import tokenizer as tokenizers
    from idc.model.build import build
    from shards.reading.reader import Folder

    ranks = Ranks(60)
    stage = dataclasses.replace(
        tiny.config.stage(stage_name), steps=STEPS, micro_batch_size=micro_batch_size, contrastive_group=group,
        mvcl_temperature=0.1, fda_temperature=0.1, batch_sizes={"fda": 5, "photo_fda": 2}, clip=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build(dataclasses.replace(tiny.config.model, dropout=0.0))
    names = Folder.open(tiny.shards).manifest["classes"]
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    batches = Batches(
        tiny.shards, tiny.features, tokenizer, model.config, model.visual_tokens, stage, 5, ranks.rank, ranks.world,
        names=names,
    )  # fmt: skip
    engine = Engine(model, stage, ClusterConfig(zero_stage=zero_stage), torch.device("cpu"))
    found = []
    for step in range(STEPS):
        batch = batches.step(step)
        ((losses, norm, *_),) = read(engine, [train_step(engine, batch, stage, 1e-3)])
        found.append((batch.task, losses, norm))
    weights = {name: tensor.numpy() for name, tensor in engine.weights().items()}
    engine.close()
    return found, weights


def curves(tiny: Data, cases: list[tuple]) -> list:
    return [curve(tiny, *case) for case in cases]


def worst(one: list, other: list) -> float:
    """The largest relative difference of all losses and gradient norms."""
    found = 0.0
    for (task, losses, norm), (other_task, other_losses, other_norm) in zip(one, other, strict=True):
        assert task == other_task and losses.keys() == other_losses.keys()
        pairs = [(norm, other_norm), *((loss, other_losses[name]) for name, loss in losses.items())]
        found = max(found, *(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs))
    return found


# (stage, ZeRO stage, micro-batch, contrastive group); 0: the whole batch
REFERENCE = [("pretrain", 0, 8, 0), ("finetune", 0, 8, 0), ("pretrain", 0, 8, 2)]


@pytest.fixture(scope="module")
def data(tiny: Any) -> Data:
    return Data(tiny.config, tiny.shards, tiny.features)


@pytest.fixture(scope="module")
def alone(data: Data) -> dict:
    cases = [*REFERENCE, ("pretrain", 0, 3, 0), ("finetune", 0, 3, 0), ("pretrain", 1, 2, 0)]
    found = dict(zip(cases, run_ranks(1, curves, data, cases)[0], strict=True))
    tasks = {task for case in REFERENCE for task, _, _ in found[case][0]}
    assert {"mlm", "mvcl", "fda", "classify", "photo_mvcl", "finetune"} <= tasks
    return found


def reference(alone: dict, case: tuple) -> list:
    return alone[case[0], 0, 8, case[3]][0]


@pytest.mark.ranks
def test_micro_batches_do_not_change_what_the_whole_batch_compares(alone: dict) -> None:
    for case in alone:
        first, rest = (
            worst(alone[case][0][:1], reference(alone, case)[:1]),
            worst(alone[case][0], reference(alone, case)),
        )
        assert first < 1e-6 and rest < 2e-5, (case, first, rest)


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("world", "cases"),
    [
        (2, [("pretrain", stage, 8, 0) for stage in (0, 1, 2, 3)] + [("finetune", 3, 1, 0), ("pretrain", 2, 3, 2)]),
        (3, [("pretrain", 1, 8, 0), ("pretrain", 3, 2, 2), ("finetune", 2, 8, 0)]),
        (4, [("pretrain", 0, 1, 0), ("pretrain", 3, 8, 0), ("finetune", 1, 8, 0), ("pretrain", 2, 8, 2)]),
    ],
)
def test_any_number_of_workers_follows_the_curve_of_one(data: Data, alone: dict, world: int, cases: list) -> None:
    """Batches of 8, 5 and 2 over 2, 3 and 4 workers: in steps of 2, one or two of them have nothing."""
    ranks = run_ranks(world, curves, data, cases)
    for number, case in enumerate(cases):
        steps, weights = ranks[0][number]
        assert all(other[number][0] == steps for other in ranks), "ranks report the same losses"
        expected = reference(alone, case)
        assert worst(steps[:1], expected[:1]) < 1e-6, case
        assert worst(steps, expected) < 2e-5, case
        for name, tensor in alone[case[0], 0, 8, case[3]][1].items():
            # The bias of keys has no gradient but rounding, which Adam's first steps make as large as any other.
            assert name.endswith("key.bias") or abs(tensor - weights[name]).max() < 1e-3, (case, name)


def test_every_recipe_is_shared_by_any_number_of_workers() -> None:
    """No option beside the number: every sample has a place, and every worker has the same number of passes."""
    from cluster.config.fields import task_batch_size, task_group
    from cluster.config.validation import validate
    from shards.order.permutation import rank_positions

    for name, recipe in RECIPES.items():
        config = recipe()
        for world in (1, 2, 3, 4, 8, 16):
            config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, workers=world))
            validate(config)
            for stage in (config.stage(each) for each in config.stages):
                for task in (task for task, ratio in stage.ratios.items() if ratio):
                    number, size = task_micro_batches(stage, task, world)
                    batch, group = task_batch_size(stage, task), task_group(stage, task)
                    shares = [rank_positions(0, batch, world, rank, group) for rank in range(world)]
                    assert sorted(position for share in shares for position in share) == list(range(batch)), name
                    assert max(map(len, shares)) <= number * size and size <= max(stage.micro_batch_size, group)
                    assert (number - 1) * size < max(map(len, shares)), "no pass for nothing"


def test_shares_are_cut_as_evenly_as_they_can_be() -> None:
    stage = StageConfig(global_batch_size=200, micro_batch_size=100, contrastive_group=0, batch_sizes={"fda": 28})
    assert task_micro_batches(stage, "mlm", 1) == (2, 100)
    assert task_micro_batches(stage, "mlm", 3) == (1, 67)
    assert task_micro_batches(stage, "fda", 16) == (1, 2)
    assert task_micro_batches(dataclasses.replace(stage, contrastive_group=20), "mvcl", 16) == (1, 20)


def both_passes(task: str) -> tuple[list, list]:
    """What two micro-batches compare in the pass without gradients and in the one with them, with dropout."""
    import torch
    from testing.models.engines import make_batch, make_engine

    from cluster.batches.batches import StepBatch
    from cluster.training.step import train_step
    from idc.losses.objectives import prepare

    engine, stage = make_engine(1, dropout=0.3)
    engine.model.train()
    passes: list[list[dict[str, Any]]] = [[], []]
    forward = engine.forward

    def recorded(*arguments: Any) -> Any:
        found = forward(*arguments)
        seen = {name: tensor.detach().float().numpy() for name, tensor in found[1].items()}
        passes[int(torch.is_grad_enabled())].append(seen)
        return found

    engine.forward = recorded
    generator = torch.Generator().manual_seed(0)
    parts = [prepare(task, make_batch(task, generator)) for _ in range(2)]
    train_step(engine, StepBatch(task, parts, 16), dataclasses.replace(stage, contrastive_group=0), 1e-3, seed=7)
    engine.close()
    return passes[0], passes[1]


@pytest.mark.ranks
@pytest.mark.parametrize("task", ["mvcl", "classify"])
def test_both_passes_of_a_micro_batch_have_the_same_dropout(task: str) -> None:
    ((first, second),) = run_ranks(1, both_passes, task)
    assert len(first) == len(second) == 2
    for one, other in zip(first, second, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    trained = "wrong" if task == "mvcl" else "photos"
    assert not (first[0][trained] == first[1][trained]).all()


class Counting:
    """Counts operations that make a host wait for a GPU."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "equal")

    def __init__(self) -> None:
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        counted = self.counted = []

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                name = operator.overloadpacket.__name__
                masks = name in ("index", "index_put_") and any(
                    index is not None and index.dtype == torch.bool for index in args[1]
                )
                if name in Counting.WAITS or masks:
                    counted.append(name)
                return operator(*args, **(kwargs or {}))

        self.mode = Mode


def waits() -> dict[tuple, list[str]]:
    """Operations that would wait for a GPU in steps of every task, by ZeRO stage and task."""
    import torch
    from testing.models.engines import GROUP, TASKS, make_batch, make_engine

    from cluster.batches.batches import StepBatch
    from cluster.distributed.ranks import Ranks
    from cluster.training.step import read, train_step
    from idc.losses.objectives import prepare

    Ranks(60)
    found = {}
    for zero_stage in (0, 1, 2, 3):
        engine, stage = make_engine(zero_stage)
        generator = torch.Generator().manual_seed(1)
        for task in TASKS:
            for contrast in (GROUP, 0):
                stage = dataclasses.replace(stage, contrastive_group=contrast)
                parts = [prepare(task, make_batch(task, generator), group=contrast) for _ in range(2)]
                counting = Counting()
                with counting.mode():
                    measured = train_step(engine, StepBatch(task, parts, 16), stage, 1e-3)
                found[zero_stage, task, contrast] = counting.counted
                with counting.mode():
                    read(engine, [measured])
        engine.close()
    return found


@pytest.mark.ranks
def test_a_step_of_the_engine_asks_for_no_value() -> None:
    """The whole step with DeepSpeed's part, at every ZeRO stage; the published network, all its tasks."""
    for found in run_ranks(2, waits):
        assert len(found) == 4 * 5 * 2
        assert not {case: names for case, names in found.items() if names}


def waits_for_gradients(folder: Path) -> None:
    """Rank 1 comes late to its gradients; rank 0 writes down how long it waited before it gave up."""
    import os
    import time

    import torch
    import torch.distributed as dist
    from deepspeed.utils import groups
    from testing.models.engines import make_engine

    make_engine(1, timeout_s=3)
    started = time.monotonic()
    try:
        if dist.get_rank() == 0:  # the group that ZeRO reduces gradients in
            dist.all_reduce(torch.ones(1), group=groups._get_data_parallel_group())
    except RuntimeError:
        (folder / "waited").write_text(str(time.monotonic() - started))
    while not (folder / "waited").exists():
        time.sleep(0.1)
        if time.monotonic() > started + 30:
            break
    os._exit(3)  # no group works any more


@pytest.mark.ranks
def test_gradients_do_not_wait_past_the_limit(tmp_path: Path) -> None:
    """DeepSpeed's own groups have torch's half hour unless they are told otherwise."""
    with pytest.raises(RankDied, match="exit code 3"):
        run_ranks(2, waits_for_gradients, tmp_path)
    assert 2 < float((tmp_path / "waited").read_text()) < 10


@pytest.mark.slow
def test_features_in_memory_give_the_batches_that_the_disk_gives(tiny: Any) -> None:
    import torch

    from cluster.batches.batches import Batches
    from cluster.batches.feed import Feed
    from cluster.batches.resident import choose
    from cluster.config.fields import DataConfig
    from idc.captioning import tokenizer as tokenizers
    from shards.errors import DataError
    from shards.reading.reader import Folder

    device, features = torch.device("cpu"), Folder.open(tiny.features)
    assert choose("auto", device, [features]) is None and choose("disk", device, [features]) is None
    with pytest.raises(DataError, match="--data.features_on gpu: the workers have no GPU"):
        choose("gpu", device, [features])
    resident = choose("cpu", device, [features])
    stage = dataclasses.replace(tiny.config.stage("pretrain"), steps=12)
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    make = [
        Batches(tiny.shards, tiny.features, tokenizer, tiny.config.model, 12, stage, 5, 0, 1, resident=each)
        for each in (None, resident)
    ]
    found = []
    for batches, each in zip(make, (None, resident), strict=True):
        with Feed(batches, range(12), DataConfig(), device, each) as feed:
            found.append(list(feed))
    from_disk, from_memory = found
    for one, other in zip(from_disk, from_memory, strict=True):
        for part, other_part in zip(one.micro_batches, other.micro_batches, strict=True):
            assert part.keys() == other_part.keys()
            assert all(torch.equal(part[name], other_part[name]) for name in part)
    shown = {"pair": 2, "photo": 1, "class": 1}
    held, images = len(resident._row_of), 0
    for kind, each in shown.items():
        images += each * len(features.stream(kind, "train"))
    assert held < images, "scenes share images, which are held once"
