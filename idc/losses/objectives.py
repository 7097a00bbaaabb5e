"""All that is trained, by task: the losses of a batch, and what has to be known of it beforehand.

A batch has images and the keys of its objective (B samples, N cells, F channels, L words, K negatives). Images are
`before` and `after` (B, N, F), or one `photo` (B, N, F) for mlm, mvcl, fda and labels; any floating type. Optional for
all: `real` (B,) bool, False for rows that only even out a batch.

`prepare` adds what the losses need to know beforehand. Nothing in a loss asks the device for a value, so a GPU never
waits for the host; a batch that is not prepared is prepared on the spot, which does ask.

MVCL and the class contrast compare samples with one another: inside groups of `contrastive_group` samples, or over the
whole global batch. What they compare comes from `parts`, so that a caller can bring together what several micro-batches
and ranks have and then call `contrast`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idc.losses import LOSSES
from idc.losses.classify import CLASSIFY
from idc.losses.fda import FDA
from idc.losses.finetune import FINETUNE
from idc.losses.labels import LABELS
from idc.losses.mlm import MLM
from idc.losses.mvcl import MVCL
from idc.losses.objective import Batch, LossSum, Objective, ObjectiveOptions, Room
from idc.model.config import PAD

if TYPE_CHECKING:
    from idc.model.trunk import Trunk

__all__ = ["LOSSES", "OBJECTIVES", "LossSum", "ObjectiveOptions", "contrast", "counts", "losses", "parts", "prepare"]

OBJECTIVES: dict[str, Objective] = {one.name: one for one in (MLM, MVCL, FDA, CLASSIFY, LABELS, FINETUNE)}
COUNTS = "counts"


def objective(task: str) -> Objective:
    """The objective of that name. ValueError: no such task."""
    if task not in OBJECTIVES:
        raise ValueError(f"no task {task!r}; the tasks are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[task]


def loss_names(task: str, batch: Batch) -> tuple[str, ...]:
    """The losses that a task gives for such a batch, in the order of its counts. ValueError: no such task."""
    one = objective(task)
    return tuple(loss for loss in one.losses if one.only_with.get(loss) is None or one.only_with[loss] in batch)


def counts(task: str, batch: Batch, pad: int = PAD) -> dict[str, float]:
    """The denominators of the losses that `losses` will return for this batch, without a forward pass."""
    return dict(zip(loss_names(task, batch), prepare(task, batch, pad)[COUNTS].tolist(), strict=True))


def prepare(
    task: str, batch: Batch, pad: int = PAD, group: int = 0, hidden: int = 0, multiple: int = 1
) -> dict[str, Tensor]:
    """The batch of a task with what its losses need to know beforehand; arguments as in `Room`.

    Added are `counts` (losses,) float32, in the order of `loss_names`, and what the objective's own `prepare` adds.
    Raises ValueError if the batch is not made of whole groups.
    """
    found = dict(batch)
    ours = objective(task).prepare(found, Room(pad, group, hidden, multiple))
    return found | {COUNTS: torch.tensor([ours[name] for name in loss_names(task, batch)])}


def losses(model: Trunk, task: str, batch: Batch, options: ObjectiveOptions | None = None) -> dict[str, LossSum]:
    """Loss name -> sum and count. Weights between losses are the caller's."""
    options = options or ObjectiveOptions()
    batch = _prepared(model, task, batch, options)
    sums, compared = parts(model, task, batch, options)
    if compared is not None:
        sums[objective(task).compared] = contrast(task, compared, options)
    names, count = loss_names(task, batch), batch[COUNTS]
    assert set(sums) == set(names), f"{sorted(sums)} computed, {sorted(names)} counted"
    return {name: LossSum(sums[name], count[place]) for place, name in enumerate(names)}


def parts(
    model: Trunk, task: str, batch: Batch, options: ObjectiveOptions
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """(sums of the losses that look at one sample at a time, what the loss compares that looks at several).

    The second is what `contrast` takes, None for the tasks without such a loss. The batch is a prepared one.
    """
    return objective(task).parts(model, batch, options)


def contrast(task: str, compared: Batch, options: ObjectiveOptions) -> Tensor:
    """The sum of the loss that compares samples, from what `parts` gave (of several micro-batches: `joined`)."""
    make = objective(task).contrast
    assert make is not None, f"{task} compares no samples"
    return make(compared, options)


def joined(compared: Sequence[Batch]) -> dict[str, Tensor]:
    """What several micro-batches compare, as one group: for contrast over the whole batch."""
    return {name: torch.cat([part[name] for part in compared], dim=1) for name in compared[0]}


def _prepared(model: Trunk, task: str, batch: Batch, options: ObjectiveOptions) -> Mapping[str, Tensor]:
    """The batch with places and counts, made here if they are missing."""
    if COUNTS in batch:
        return batch
    some = next(iter(batch.values()))
    host = {name: tensor.cpu() for name, tensor in batch.items() if name not in ("before", "after", "photo")}
    added = prepare(task, host, model.config.pad, options.contrastive_group)
    return {**batch, **{name: tensor.to(some.device) for name, tensor in added.items()}}
