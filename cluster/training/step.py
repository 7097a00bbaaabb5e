"""One optimiser step, and what it did. Nothing in here waits for the device: numbers stay there until they are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.batches.batches import StepBatch
from cluster.config.fields import ClusterConfig, FinetuneConfig, StageConfig
from cluster.distributed.gather import gather
from cluster.training.engine import Engine, StepResult
from idc.losses.objectives import OBJECTIVES, ObjectiveOptions, contrast, joined


@dataclass(frozen=True)
class Measured:
    """Losses of a step, on the device: this rank's parts of the means over the whole global batch."""

    names: tuple[str, ...]
    losses: Tensor  # (losses,) float32
    result: StepResult


class Passes(Protocol):
    """What a step asks of an engine: `Engine` is one, and so is what stands in its place to look at a step."""

    def forward(self, *arguments: Any) -> Any:
        """The losses of `TrainingModel.forward`."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradient of this rank's part of the global loss."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""

    def step(self, lr: float, task: str) -> StepResult:
        """One optimiser step."""


def objective_options(stage: StageConfig) -> ObjectiveOptions:
    """What the losses of a stage are computed with, in the process group that is there."""
    return ObjectiveOptions(
        mvcl_temperature=stage.mvcl_temperature,
        fda_temperature=stage.fda_temperature,
        contrastive_group=stage.contrastive_group,
        label_smoothing=stage.label_smoothing,
        gather=gather,
        rank=dist.get_rank(),
    )


def rounding(device: torch.device, cluster: ClusterConfig) -> tuple[int, int]:
    """What lengths of captions, and numbers of words and cells, are rounded up to in batches.

    Products of half precision want eights. Compiled code wants few shapes, for it is compiled anew for each.
    """
    compiled = cluster.compile != "off"
    return 8 if compiled or device.type == "cuda" else 1, 256 if compiled else 1


def train_step(
    engine: Passes,
    batch: StepBatch,
    stage: StageConfig,
    lr: float,
    seed: int = 0,
    options: ObjectiveOptions | None = None,
) -> Measured:
    """One optimiser step on a batch that is on the engine's device; `seed`: of dropout, this rank's own;
    `options`: of the losses, those of the stage and of the process group where they are not given.

    Each loss is a sum divided by its count over all ranks and micro-batches, so loss and gradient are those of the
    global batch however it is cut. Counts came with the batch, so this is known before the first backward pass.
    """
    options, names = options or objective_options(stage), batch.losses
    counts = engine.total(torch.stack([part["counts"] for part in batch.micro_batches]).sum(dim=0)).clamp_min(1.0)
    per_word = names[0] == "caption" and isinstance(stage, FinetuneConfig) and stage.per_word
    divisors = counts[:1].expand_as(counts) if per_word else counts
    weight = {name: stage.weights.get(name, 1.0) for name in names}
    at = {name: place for place, name in enumerate(names)}

    def weighted(sums: dict[str, Tensor]) -> Tensor:
        return torch.stack([weight[name] * value / divisors[at[name]] for name, value in sums.items()]).sum()

    task, parts = batch.model_task, batch.micro_batches
    objective = OBJECTIVES[task]
    whole = objective.contrast is not None and not stage.contrastive_group and len(parts) > 1
    wanted, compared_loss = _wanted_of_each(engine, task, parts, options, weighted, seed) if whole else (None, None)
    sums: dict[str, list[Tensor]] = {name: [] for name in names}
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        last = number == len(parts) - 1
        if wanted is None:
            found = {name: loss.sum for name, loss in engine.forward(task, part, options).items()}
            engine.backward(weighted(found), last)
        else:
            found, compared = engine.forward(task, part, options, True)
            told = [(compared[name] * gradient).sum() for name, gradient in wanted[number].items()]
            engine.backward(torch.stack([*told, *([weighted(found)] if found else [])]).sum(), last)
        for name, value in found.items():
            sums[name].append(value.detach())
    if compared_loss is not None:
        sums[objective.compared].append(compared_loss)
    losses = torch.stack([torch.stack(sums[name]).sum() for name in names]) / counts
    return Measured(names, losses, engine.step(lr, batch.task))


class Numbers(NamedTuple):
    """What a step measured, on the host, the same on all ranks."""

    losses: dict[str, float]  # over the whole global batch
    norm: float  # of the gradient
    usual: float | None  # the median of such steps before; None after too few of them
    applied: bool  # False: the step was left out


def read(engine: Engine, measured: list[Measured]) -> list[Numbers]:
    """The numbers of each step; waits for the device. All ranks call it."""
    losses = engine.total(torch.cat([one.losses for one in measured]))
    results = [one.result for one in measured]
    told = torch.stack([part for one in results for part in (one.grad_norm, one.usual, one.applied.to(losses.dtype))])
    values = iter(torch.cat([losses, told]).tolist())
    named = [{name: next(values) for name in one.names} for one in measured]
    found = []
    for losses_by_name in named:
        norm, usual, applied = next(values), next(values), next(values)
        found.append(Numbers(losses_by_name, norm, None if math.isnan(usual) else usual, bool(applied)))
    return found


def _wanted_of_each(
    engine: Passes,
    task: str,
    parts: list[dict[str, Tensor]],
    options: ObjectiveOptions,
    weighted: Callable[[dict[str, Tensor]], Tensor],
    seed: int,
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """What the loss over the whole batch wants of each micro-batch, and the sum of that loss.

    The gradient by what is compared, {name: same shape} for each micro-batch: all pass through the network once
    without gradient, the loss is taken over all of them, and each then passes again, told its part of the gradient
    (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup").
    """
    seen = []
    with torch.no_grad():
        for number, part in enumerate(parts):
            torch.manual_seed(seed + number)  # the same dropout as in the second pass
            seen.append(engine.forward(task, part, options, True)[1])
    objective = OBJECTIVES[task]
    leaves = [{name: part[name].requires_grad_() for name in objective.trained} for part in seen]
    loss = contrast(task, joined(seen), options)
    flat = [leaf for part in leaves for leaf in part.values()]
    gradients = iter(torch.autograd.grad(weighted({objective.compared: loss}), flat))
    return [{name: next(gradients) for name in part} for part in leaves], loss.detach()
