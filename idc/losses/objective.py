"""What an objective is: its batch, its losses, how they are computed. Each has a file of this folder, `mlm` and so on.

Every loss comes as a sum and the count it is to be divided by. Counts follow from the batch alone, so a caller adds
them up over micro-batches and ranks before the first backward pass, divides each sum by the total, and gets the same
loss and gradient however the global batch was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.nn import functional

from idc.losses import COMPARED, LOSSES_OF
from idc.model.layers import upcast, without_autocast

if TYPE_CHECKING:
    from idc.model.trunk import Trunk

Batch = Mapping[str, Tensor]


def alone(rows: Tensor) -> Tensor:
    """The rows of all ranks, where there is one."""
    return rows


@dataclass(frozen=True)
class ObjectiveOptions:
    """Choices that belong to the losses, not to the model."""

    mvcl_temperature: float = 1.0
    fda_temperature: float = 1.0
    contrastive_group: int = 0  # samples among which MVCL and the class contrastive loss contrast; 0 = the whole batch
    label_smoothing: float = 0.0  # of the word losses (mlm, caption)
    # (n, ...) of this rank -> (ranks * n, ...) of all, with gradient; used where the whole batch is compared.
    gather: Callable[[Tensor], Tensor] = alone
    rank: int = 0

    def __post_init__(self) -> None:
        for name in ("mvcl_temperature", "fda_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.contrastive_group < 0:
            raise ValueError(f"contrastive_group is {self.contrastive_group}; it must be 0 (the whole batch) or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")


class LossSum(NamedTuple):
    """A scalar sum (float32 or better, differentiable) and what to divide it by, a scalar on the same device."""

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # in place of tuple.count, which has no use here

    @property
    def mean(self) -> Tensor:
        """sum / count; 0 where there was nothing to score."""
        return self.sum / self.count.clamp_min(1.0)


class Room(NamedTuple):
    """What preparing a batch needs to know beside it.

    pad: the padding id. group: contrastive_group, 0 = the whole batch. hidden: room for the hidden cells of each group;
    0 = as many as the fullest group has. multiple: numbers of words, cells and rows are rounded up to a multiple of it,
    so that few different shapes occur.
    """

    pad: int
    group: int = 0
    hidden: int = 0
    multiple: int = 1


@dataclass(frozen=True)
class Objective:
    """One task: what its batch holds beside the images, and what it gives.

    prepare: adds to the batch, a dict on the CPU, what the losses must know beforehand, and returns their counts.
    parts: (sums of the losses that look at one sample at a time, what the loss compares that looks at several). The
    second is None unless `contrast` is there, which makes of it the sum of the loss `compared`. Its losses are named in
    `idc.losses`.
    """

    name: str
    keys: tuple[str, ...]  # of the batch, beside the images
    prepare: Callable[[dict[str, Tensor], Room], dict[str, float]]
    parts: Callable[[Trunk, Batch, ObjectiveOptions], tuple[dict[str, Tensor], dict[str, Tensor] | None]]
    only_with: Mapping[str, str] = field(default_factory=dict)  # losses that a batch gives only if it has this key
    contrast: Callable[[Batch, ObjectiveOptions], Tensor] | None = None
    trained: tuple[str, ...] = ()  # of what is compared, that which gets a gradient

    @property
    def losses(self) -> tuple[str, ...]:
        """All that it can give, in the order of their counts."""
        return LOSSES_OF[self.name]

    @property
    def compared(self) -> str:
        """The loss that `contrast` makes; empty: none."""
        return COMPARED.get(self.name, "")


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 or better."""
    return functional.normalize(upcast(x), dim=-1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Dot products of rows, (..., n, F) with (..., m, F) -> (..., n, m), in their own precision even under autocast."""
    with without_autocast(x):
        return x @ y.transpose(-1, -2)
