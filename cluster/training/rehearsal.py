"""A rehearsal of a stage: the first step of each of its tasks, before step 1, so that what cannot work fails early.

A task may have its first turn hours into a run. Its first batch passes through the model here, forward and backward, in
the code of a real step, and what comes of it is thrown away: no weight, gradient, moment or random state is another
afterwards, so losses are the same bit by bit with and without it. It goes past DeepSpeed: the module itself is called,
and gradients are asked for by `torch.autograd.grad`, which fills no `.grad` and wakes no hook of DeepSpeed's. At ZeRO 3
weights are there in a forward pass alone, so there it is forward alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cluster.batches.batches import Batches, StepBatch
from cluster.batches.feed import Feed
from cluster.batches.resident import Resident
from cluster.batches.schedule import TaskSchedule
from cluster.config.fields import DataConfig, StageConfig, task_group, task_micro_batches
from cluster.distributed.ranks import lost_a_rank
from cluster.errors import ConfigError, TrainingError
from cluster.training.engine import Engine, StepResult
from cluster.training.step import train_step
from shards.errors import DataError

NO_MEMORY = "can't allocate memory"  # as torch says it of a CPU's


def rehearse(
    engine: Engine, batches: Batches, stage: StageConfig, name: str, data: DataConfig, resident: Resident | None
) -> None:
    """Puts the first batch of each task of a stage through the model. All ranks call it, before step 1.

    Raises ConfigError where memory is short, naming the task and the option to lower; TrainingError for whatever else
    a task's step fails with. Where a process is killed for its memory, the last line of its log names the task.
    """
    firsts = first_steps(batches.schedule)
    with Feed(batches, firsts, data, engine.device, resident) as feed:
        for batch in feed:
            rehearse_step(engine, batch, stage, name)


def first_steps(schedule: TaskSchedule) -> list[int]:
    """The first step of each task of a stage, in order; a task that is never drawn has none."""
    found: dict[str, int] = {}
    for step in range(schedule.steps):
        if len(found) == len(schedule.tasks):
            break
        found.setdefault(schedule.task(step), step)
    return list(found.values())


def rehearse_step(engine: Engine, batch: StepBatch, stage: StageConfig, name: str) -> None:
    """A step of which nothing remains, on a batch that is on the engine's device; errors as of `rehearse`."""
    device, number, size = engine.device, *task_micro_batches(stage, batch.task, engine.world)
    print(f"rehearsing {name}: {batch.task}, {number} x {size} samples", flush=True)
    with _told(engine, stage, name, batch.task), torch.random.fork_rng([device] if device.type == "cuda" else []):
        train_step(_Aside(engine), batch, stage, lr=0.0).losses.cpu()  # waits for the device, whose errors come late


class _Aside:
    """Stands where a step wants an engine: passes through the model, and leaves everything as it was."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._goes_back = engine.zero_stage < 3
        self._weights = engine.learning

    def forward(self, *arguments):
        with torch.set_grad_enabled(self._goes_back and torch.is_grad_enabled()):
            return self._engine.aside(*arguments)

    def backward(self, loss: Tensor, last: bool) -> None:
        if self._goes_back:
            torch.autograd.grad(loss, self._weights, allow_unused=True)

    def total(self, values: Tensor) -> Tensor:
        return self._engine.total(values)

    def step(self, lr: float, task: str) -> StepResult:
        return StepResult(torch.zeros(()), torch.zeros((), dtype=torch.bool), torch.zeros(()))


@contextmanager
def _told(engine: Engine, stage: StageConfig, name: str, task: str) -> Iterator[None]:
    """Errors of a task's rehearsal, each in one line that says what to do."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or lost_a_rank(error):
            raise  # of the machines: the workers may be started again
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and NO_MEMORY not in str(error):
            raise TrainingError(
                f"{name} cannot be trained, a step of its task {task} fails: {type(error).__name__}: {error}"
            ) from error
        raise ConfigError(_short_of_memory(engine, stage, name, task, str(error))) from None


def _short_of_memory(engine: Engine, stage: StageConfig, name: str, task: str, said: str) -> str:
    size, group = task_micro_batches(stage, task, engine.world)[1], max(task_group(stage, task), 1)
    wanted = re.search(r"tried to allocate ([\d.]+ \w+)", said, re.I)
    if size > group:
        fix = f"lower --{name}.micro_batch_size below {size}"
        fix += f", {group} or more" if group > 1 else ""
    elif group > 1:
        fix = f"lower --{name}.contrastive_group and --{name}.micro_batch_size below {size}"
    else:
        fix = "it is one sample: lower the sizes of --model, or use workers with more memory"
    return (
        f"{name} does not fit into the memory of {engine.device}: a micro-batch of {size} samples of the task {task} "
        f"asked for {wanted[1] if wanted else 'more'} than there is; {fix}"
    )
