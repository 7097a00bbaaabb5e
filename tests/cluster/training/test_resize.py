"""Saved by any number of workers at any ZeRO stage, a run goes on with any other: the same batches, the same losses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from testing.multirank import run_ranks

from cluster.training import checkpoint

WORLDS, STAGES = (1, 2, 4), (0, 1, 2, 3)
BEFORE, AFTER = 6, 20  # steps, of three tasks in turn


def undisturbed() -> list:
    from testing.models.engines import make_engine, train

    engine, stage = make_engine(0)
    return train(engine, stage, range(BEFORE + AFTER))


def save_at_every_stage(folder: Path) -> None:
    from testing.models.engines import make_engine, save, train

    from cluster.distributed.ranks import Ranks

    ranks = Ranks(60)
    for zero_stage in STAGES:
        engine, stage = make_engine(zero_stage)
        train(engine, stage, range(BEFORE))
        save(engine, ranks, folder / f"{ranks.world}-{zero_stage}", BEFORE)
        engine.close()


def go_on(folder: Path, cases: list[tuple[str, int, int]]) -> list[list]:
    """The losses after each checkpoint (its folder's name, the ZeRO stage now, steps)."""
    from testing.models.engines import make_engine, train

    found = []
    for name, zero_stage, steps in cases:
        engine, stage = make_engine(zero_stage, found=checkpoint.latest(folder / name))
        found.append(train(engine, stage, range(BEFORE, BEFORE + steps)))
        engine.close()
    return found


def worst(one: list, other: list) -> float:
    """The largest relative difference of all losses and gradient norms."""
    assert [losses.keys() for losses, _ in one] == [losses.keys() for losses, _ in other]
    pairs = [(norm, other_norm) for (_, norm), (_, other_norm) in zip(one, other, strict=True)]
    for (losses, _), (expected, _) in zip(one, other, strict=True):
        pairs += [(losses[name], expected[name]) for name in losses]
    return max(abs(a - b) / abs(b) for a, b in pairs)


@pytest.mark.ranks
def test_any_number_of_workers_goes_on_from_any_other(tmp_path: Path) -> None:
    """{1, 2, 4} workers before and after at each ZeRO stage, 20 steps; and each stage into each other one, 3 steps."""
    (expected,) = run_ranks(1, undisturbed)
    for world in WORLDS:
        run_ranks(world, save_at_every_stage, tmp_path)
    for world in WORLDS:
        cases = [(f"{saved}-{stage}", stage, AFTER) for saved in WORLDS for stage in STAGES]
        # Every stage into every other one, from another number of workers.
        shift = 1 + WORLDS.index(world)
        cases += [(f"{WORLDS[shift % 3]}-{stage}", (stage + shift) % 4, 3) for stage in STAGES]
        ranks = run_ranks(world, go_on, tmp_path, cases)
        for number, (name, stage, steps) in enumerate(cases):
            assert all(other[number] == ranks[0][number] for other in ranks), "ranks report the same losses"
            off = worst(ranks[0][number], expected[BEFORE : BEFORE + steps])
            assert off < 1e-5, f"{name} -> {world} workers at stage {stage}: {off}"


@dataclasses.dataclass(frozen=True)
class Data:
    """What the fixture `tiny` made, in a class that other processes can import."""

    config: Any
    shards: Path
    features: Path


EVERY = 9  # steps between two changes of the number of workers


def segment(data: Data, folder: Path, first: int, zero_stage: int, steps: int = EVERY) -> list:
    """(losses, gradient norm) of so many steps from `first` on, with a checkpoint after them."""
    import torch
    from testing.models.engines import save

    from cluster.batches.batches import Batches
    from cluster.config.fields import ClusterConfig
    from cluster.distributed.ranks import Ranks
    from cluster.training.engine import Engine
    from cluster.training.saving import restore
    from cluster.training.step import read, train_step
    from idc.captioning import tokenizer as tokenizers
    from idc.model.build import build

    ranks, found = Ranks(60), checkpoint.latest(folder)
    stage = dataclasses.replace(data.config.stage("finetune"), steps=4 * EVERY)
    torch.manual_seed(0)
    model = build(dataclasses.replace(data.config.model, dropout=0.0))
    if found is not None:
        assert found.commit.step == first
        model.load_state_dict(checkpoint.load_weights(found.weights))
    batches = Batches(
        data.shards, data.features, tokenizers.load(data.shards / "tokenizer.model"), model.config,
        model.visual_tokens, stage, 5, ranks.rank, ranks.world,
    )  # fmt: skip
    engine = Engine(model, stage, ClusterConfig(zero_stage=zero_stage), torch.device("cpu"))
    if found is not None:
        restore(found, engine)
    losses = []
    for step in range(first, first + steps):
        (taken,) = read(engine, [train_step(engine, batches.step(step), stage, 1e-3)])
        losses.append((taken.losses, taken.norm))
    save(engine, ranks, folder, first + steps, stage="finetune")
    engine.close()
    return losses


@pytest.mark.ranks
def test_a_run_may_change_its_size_again_and_again(tiny: Any, tmp_path: Path) -> None:
    """1, 2, 4 and 1 workers, at ZeRO stages 0, 1, 3 and 2, past the end of an epoch, as one worker without a stop."""
    from shards.reading.reader import Folder

    data = Data(tiny.config, tiny.shards, tiny.features)
    pairs = Folder.open(tiny.shards).manifest["splits"]["train"]["pair"]
    assert 4 * EVERY * tiny.config.finetune.global_batch_size > 1.2 * pairs, "more than an epoch"
    changing = []
    for number, (world, zero_stage) in enumerate([(1, 0), (2, 1), (4, 3), (1, 2)]):
        changing += run_ranks(world, segment, data, tmp_path / "changing", number * EVERY, zero_stage)[0]
    (steady,) = run_ranks(1, segment, data, tmp_path / "steady", 0, 0, 4 * EVERY)
    assert worst(changing, steady) < 1e-5
