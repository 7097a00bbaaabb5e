"""python -m bench.one_worker PARENT ARGUMENTS...: cluster/train.py with this process as the only worker, without Ray.

It ends when the process PARENT does. It starts and ends in a few seconds, and trains on the GPU if
--cluster.gpus_per_worker is 1. Everything else is the ordinary command's: data, run folder, checkpoints, scores.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from cluster import pipeline
from cluster.distributed.devices import choose_accelerator, place, resolved
from cluster.errors import ConfigError, exit_code
from cluster.recipes.commandline import parse
from cluster.training import worker
from shards.errors import run_main
from tune.trials.run import tie_to


@contextmanager
def one_rank(device: str, precision: str, timeout_s: float = 120) -> Iterator[None]:
    """The process group of this process alone: NCCL on a GPU, gloo on CPUs; no connection is made."""
    # DeepSpeed wants all five.
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    choose_accelerator(torch.device(device), precision)
    backend, limit = "nccl" if device == "cuda" else "gloo", timedelta(seconds=timeout_s)
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    try:
        yield
    finally:
        dist.destroy_process_group()


def fit(job: worker.Job) -> None:
    """What `cluster.launch.ray_train.fit` does, with this process as the only worker."""
    warnings.simplefilter("ignore", FutureWarning)
    cluster = job.config.cluster
    device = torch.device("cuda", 0) if cluster.gpus_per_worker == 1 else torch.device("cpu")
    if device.type == "cpu":
        job = dataclasses.replace(job, config=resolved(job.config, place(cluster, [])))
    with one_rank(device.type, job.config.cluster.precision, cluster.timeout_s):
        worker.run(job, device)


def main(arguments: Sequence[str]) -> int:
    """Exit codes as of cluster/train.py."""
    command = parse(arguments)
    cluster = command.config.cluster
    if cluster.workers != 1 or cluster.gpus_per_worker not in ("auto", 0, 1):
        raise ConfigError("one process trains here: give --cluster.workers 1 and --cluster.gpus_per_worker 0 or 1")
    return exit_code(lambda: pipeline.run(command, fit))


if __name__ == "__main__":
    tie_to(int(sys.argv.pop(1)))
    run_main(main)
