"""Runs a function as several ranks of one gloo process group, without Ray: a fresh process each.

They are forks of a server that has imported what takes seconds to import, and done nothing else.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import queue
import socket
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from testing.suite import marked

if TYPE_CHECKING:
    from cluster.training.job import Job

LIMIT_S = 240
# ZeRO 3, and code that is compiled, import the second, over a second of work. The server looks in no folder of tests.
IMPORTED = ["deepspeed", "torch._dynamo", "cluster.training.worker"]


class RankDied(AssertionError):
    """A rank ended without a result."""


def run_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(*arguments) on `world` ranks; what each returned, rank by rank. A failing rank fails the test."""
    marked.needs("ranks")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to ask CUDA itself would spoil it for forks
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = context.Queue()
    ranks = [
        context.Process(
            target=_rank, args=(rank, world, port, results, dict(os.environ), function, arguments), daemon=True
        )
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    found: dict[int, Any] = {}
    deadline = time.monotonic() + LIMIT_S
    try:
        while len(found) < world:
            try:
                rank, value, error = results.get(timeout=0.2)
            except queue.Empty:
                dead = [process.exitcode for process in ranks if process.exitcode]
                if dead:
                    raise RankDied(f"a rank died with exit code {dead[0]}") from None
                assert time.monotonic() < deadline, f"only ranks {sorted(found)} of {world} ended within {LIMIT_S} s"
                continue
            assert error is None, f"rank {rank} failed:\n{error}"
            found[rank] = value
    finally:
        for process in ranks:
            process.join(10 if len(found) == world else 0)
            process.kill()
    return [found[rank] for rank in range(world)]


def fit(job: Job) -> None:
    """What `cluster.launch.ray_train.fit` does, with such ranks as the workers."""
    from cluster.distributed.devices import place, resolved

    placement = place(job.config.cluster, [])
    run_ranks(placement.workers, _work, dataclasses.replace(job, config=resolved(job.config, placement)))


def _work(job: Job) -> None:
    import torch

    from cluster.distributed.devices import choose_accelerator
    from cluster.training import worker

    choose_accelerator(torch.device("cpu"), job.config.cluster.precision)
    worker.run(job, torch.device("cpu"))


def _rank(
    rank: int,
    world: int,
    port: int,
    results: Any,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple,
) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= environment | {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    gc.freeze()  # what the server has imported stays
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo")
        value = function(*arguments)
        results.put((rank, value, None))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
