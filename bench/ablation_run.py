"""python bench/ablation_run.py PARENT ARGUMENTS...: cluster/train.py in one process of the CPU, without Ray.

It ends when the process PARENT does. Everything else is the ordinary command's: data, run folder, checkpoints, scores.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from cluster import pipeline
from cluster.distributed.devices import place, resolved  # noqa: E402
from cluster.errors import ConfigError, TrainingError  # noqa: E402
from cluster.recipes.commandline import parse  # noqa: E402
from cluster.training import worker  # noqa: E402
from shards.errors import run_main  # noqa: E402
from tune.trials.run import tie_to  # noqa: E402


def fit(job: worker.Job) -> None:
    """What `cluster.launch.ray_train.fit` does, with this process as the only worker."""
    # DeepSpeed wants all five; no connection is made.
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    warnings.simplefilter("ignore", FutureWarning)
    limit = timedelta(seconds=job.config.cluster.timeout_s)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    job = dataclasses.replace(job, config=resolved(job.config, place(job.config.cluster, [])))
    try:
        worker.run(job, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def main(arguments: Sequence[str]) -> int:
    """Exit codes as of cluster/train.py."""
    command = parse(arguments)
    cluster = command.config.cluster
    if cluster.workers != 1 or cluster.gpus_per_worker not in ("auto", 0):
        raise ConfigError(
            "an ablation trains in one process of the CPU: leave out --cluster.workers and --cluster.gpus_per_worker"
        )
    try:
        pipeline.run(command, fit)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    tie_to(int(sys.argv.pop(1)))
    run_main(main)
