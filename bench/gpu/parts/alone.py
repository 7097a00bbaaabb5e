"""python -m bench.gpu.parts.alone ARGUMENTS...: cluster/train.py with this process as the only worker, without Ray.

Starts and ends in a few seconds, so that a short lease holds many runs. Runs on the GPU where
--cluster.gpus_per_worker is 1. Everything else is the ordinary command's: data, run folder, checkpoints, scores.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import torch

from bench.gpu.parts.ours import one_rank
from cluster import pipeline
from cluster.errors import ConfigError, TrainingError
from cluster.recipes.commandline import parse
from cluster.training import worker
from shards.errors import run_main


def main(arguments: Sequence[str]) -> int:
    """Exit codes as of cluster/train.py."""
    command = parse(arguments)
    cluster = command.config.cluster
    if cluster.workers != 1 or cluster.gpus_per_worker not in (0, 1):
        raise ConfigError("one process trains here: give --cluster.workers 1 and --cluster.gpus_per_worker 0 or 1")
    device = torch.device("cuda", 0) if cluster.gpus_per_worker else torch.device("cpu")

    def fit(job) -> None:
        warnings.simplefilter("ignore", FutureWarning)
        with one_rank(device.type, cluster.precision):
            worker.run(job, device)

    try:
        pipeline.run(command, fit)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    run_main(main)
