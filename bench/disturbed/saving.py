"""Two ranks that train and write a checkpoint after each step, killed at random moments.

They are forks of a server that has imported what takes seconds to import, and go on from the newest checkpoint as a
run's workers do: the same reading, engine and writing, without Ray and without data.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from cluster.training import checkpoint
from shards.errors import DataError
from shards.format.whole_files import PARTIAL

RANKS, BATCH, GRID, CHANNELS, WORDS, LENGTH = 2, 4, (3, 4), 12, 30, 10
LIMIT_S, LOST_S = 120.0, 20
LATEST_S = 0.15  # of a kill, after a step: a checkpoint and the step after it take about as long
_CONTEXT = multiprocessing.get_context("forkserver")


def kill_while_it_saves(folder: Path, kills: int) -> tuple[int, int, bool]:
    """Kills that came while a checkpoint was being written, steps in the end, and whether all is as without a kill."""
    _CONTEXT.set_forkserver_preload(["deepspeed", "torch._dynamo", "cluster.training.saving", "idc.model.build"])
    moments, stage, inside = random.Random(0), folder / "killed", 0
    stage.mkdir(parents=True)
    for number in range(kills):
        before, ranks = _newest(stage), _start(stage, 0)
        _wait(lambda before=before: _newest(stage) > before, ranks)
        time.sleep(moments.uniform(0, LATEST_S))
        inside += _kill(ranks, number % RANKS, stage)
        there = checkpoint.find(stage)
        if any(map(checkpoint.damage, there)) or there[-1].commit.step <= before:
            return inside, _newest(stage), False
    steps = _newest(stage) + 1
    for end in (stage, folder / "alone"):
        for rank in (ranks := _start(end, steps)):
            rank.join(LIMIT_S)
        if any(rank.exitcode for rank in ranks):
            raise DataError(f"ranks that save into {end} did not come to their end")
    killed, alone = (checkpoint.latest(end).weights.read_bytes() for end in (stage, folder / "alone"))
    return inside, steps, killed == alone


def _newest(stage: Path) -> int:
    found = checkpoint.latest(stage)
    return found.commit.step if found else 0


def _start(stage: Path, steps: int) -> list[BaseProcess]:
    """Two ranks that go on, up to so many steps; 0: until they are killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [_CONTEXT.Process(target=_rank, args=(rank, port, stage, steps), daemon=True) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    return ranks


def _wait(what: Callable[[], bool], ranks: list[BaseProcess]) -> None:
    until = time.monotonic() + LIMIT_S
    while not what():
        if time.monotonic() > until or any(rank.exitcode is not None for rank in ranks):
            raise DataError(f"ranks that save have ended too early, or nothing came within {LIMIT_S:g} s")
        time.sleep(0.01)


def _kill(ranks: list[BaseProcess], first: int, stage: Path) -> bool:
    """kill -9 of one rank; the other one loses it, and has to end by itself. Whether a checkpoint was being written."""
    os.kill(ranks[first].pid, signal.SIGKILL)
    inside = any(stage.glob(f"*{PARTIAL}"))
    for rank in ranks:
        rank.join(LIMIT_S)
        if rank.exitcode is None:
            rank.kill()
            raise DataError(f"a rank did not end within {LIMIT_S:g} s of the other's death")
    return inside


def _rank(rank: int, port: int, folder: Path, steps: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    import torch
    import torch.distributed as dist

    from cluster.batches.batches import StepBatch
    from cluster.config.fields import ClusterConfig
    from cluster.distributed.devices import choose_accelerator
    from cluster.distributed.ranks import Ranks
    from cluster.recipes.registry import RECIPES
    from cluster.training.engine import Engine
    from cluster.training.saving import Saver, restore
    from cluster.training.step import train_step
    from idc.losses.objectives import prepare
    from idc.model.build import build

    with open(folder.with_suffix(".txt"), "ab") as log:  # of the rank that loses the other
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    choose_accelerator(torch.device("cpu"), "fp32")
    dist.init_process_group("gloo")
    config, ranks = RECIPES["tiny"](), Ranks(LOST_S)
    found = checkpoint.newest_readable(folder, ranks)
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "grid": GRID, "feature_dim": CHANNELS, "classes": 5}
    model = build(dataclasses.replace(config.model, dropout=0.0, **sizes))
    if found is not None:
        model.load_state_dict(checkpoint.load_weights(found.weights))
    engine = Engine(model, config.finetune, ClusterConfig(zero_stage=1, timeout_s=LOST_S), torch.device("cpu"))
    if found is not None:
        restore(found, engine)
    step, saver = found.commit.step if found else 0, Saver(folder, ranks.apart(), LOST_S, keep=2)
    while not steps or step < steps:
        drawn = torch.Generator().manual_seed(RANKS * step + rank)
        shape = BATCH, GRID[0] * GRID[1], CHANNELS
        images = {side: torch.randn(shape, generator=drawn) for side in ("before", "after")}
        words = {"caption": torch.randint(6, WORDS, (BATCH, LENGTH), generator=drawn)}
        batch = prepare("finetune", images | words | {"changed": torch.ones(BATCH, dtype=torch.long)})
        train_step(engine, StepBatch("finetune", [batch], BATCH * RANKS), config.finetune, 1e-3)
        step += 1
        saver.save(engine, checkpoint.Commit("finetune", step, RANKS, 1))
    saver.finish()
    engine.close()
    dist.destroy_process_group()
