"""What each step of a stage does, as pure functions of (seed, stage, step): task, samples, learning rate."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right

import numpy as np

from cluster.config.fields import StageConfig, task_batch_size
from cluster.config.tasks import TASKS
from shards.order.permutation import generator


def stage_seed(seed: int, stage: str) -> int:
    """The seed of a stage's order, masks and tasks: stages of one run see the data in different orders."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{stage}".encode(), digest_size=7).digest(), "little")


def step_seed(seed: int, stage: str, step: int, rank: int) -> int:
    """The seed of torch's generator (dropout) in one step of one worker, so that a resumed run draws the same masks."""
    return int.from_bytes(hashlib.blake2b(f"{seed}|{stage}|{step}|{rank}".encode(), digest_size=7).digest(), "little")


class TaskSchedule:
    """The task of every step, and where in its stream of samples each step begins."""

    def __init__(self, stage: StageConfig, seed: int) -> None:
        """`seed` is the stage's own (`stage_seed`). More steps only append: earlier ones keep their task."""
        self.steps = stage.steps
        self.tasks = [task for task, ratio in stage.ratios.items() if ratio > 0]
        shares = np.array([stage.ratios[task] for task in self.tasks], dtype=np.float64)
        edges = np.cumsum(shares / shares.sum())
        draws = generator(seed, 0, 0, "tasks").random(stage.steps)
        # Rounding may leave the last edge a hair below 1.
        self._task = np.minimum(np.searchsorted(edges, draws, side="right"), len(self.tasks) - 1)
        batch = np.array([task_batch_size(stage, task) for task in self.tasks], dtype=np.int64)[self._task]
        streams = np.array([TASKS[task].stream for task in self.tasks])[self._task]
        self._start = np.zeros(stage.steps, dtype=np.int64)
        for stream in set(streams.tolist()):
            mine = streams == stream
            self._start[mine] = np.cumsum(batch[mine]) - batch[mine]
        self._samples = np.concatenate([[0], np.cumsum(batch)])

    def task(self, step: int) -> str:
        """The task of step 0, 1, ..."""
        return self.tasks[self._task[step]]

    def start(self, step: int) -> int:
        """The first position of this step in its stream; every task that uses the stream moves it on."""
        return int(self._start[step])

    def samples(self, step: int) -> int:
        """Samples of all streams consumed by the steps before `step`."""
        return int(self._samples[step])


def learning_rate(stage: StageConfig, step: int) -> float:
    """The learning rate of the update made by step 0, 1, ...: linear warm-up, then the stage's schedule.

    noam: lr * sqrt(warm-up / n) at update n = step + 1; cosine: to lr * lr_floor at the last step; halving: lr / 2 for
    each entry of halve_at that has been reached; constant.
    """
    update = step + 1
    if update < stage.warmup_steps:
        return stage.lr * update / stage.warmup_steps
    if stage.schedule == "noam":
        return stage.lr * math.sqrt(stage.warmup_steps / update)
    if stage.schedule == "cosine":
        progress = (update - stage.warmup_steps) / max(stage.steps - stage.warmup_steps, 1)
        share = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return stage.lr * (stage.lr_floor + (1 - stage.lr_floor) * share)
    if stage.schedule == "halving":
        return stage.lr * 0.5 ** bisect_right(sorted(stage.halve_at), step)
    return stage.lr
