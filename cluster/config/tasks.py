"""The tasks that a stage draws: an objective of `idc.losses`, on one kind of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from idc.losses import COMPARED, LOSSES, LOSSES_OF


class Task(NamedTuple):
    """An objective, and the kind of samples (of a shard folder) that it is given."""

    objective: str
    stream: str  # "pair", "photo" or "class"


# An objective is a task on pairs by its own name, unless it is named here.
TASKS: dict[str, Task] = {
    name: Task(name, "pair") for name in LOSSES_OF if name not in ("classify", "labels", "finetune")
} | {
    "classify": Task("classify", "class"),
    "class_labels": Task("labels", "class"),
    "photo_mlm": Task("mlm", "photo"),
    "photo_mvcl": Task("mvcl", "photo"),
    "photo_fda": Task("fda", "photo"),
    "photo_labels": Task("labels", "photo"),
    "pair_labels": Task("labels", "pair"),
    "finetune": Task("finetune", "pair"),
}
if TYPE_CHECKING:  # a type checker cannot run the tables: to it they are strings, and the command line looks them up
    TaskName = str
    LossName = str
else:
    TaskName = Literal[*TASKS]
    LossName = Literal[*LOSSES]


def compares_samples(task: str) -> bool:
    """Whether a loss of the task compares samples: it works inside groups of `contrastive_group` of them."""
    return TASKS[task].objective in COMPARED


def weighed(task: str, weights: dict[str, float]) -> dict[str, float]:
    """Losses of a task and what they weigh: 1 unless `weights` says otherwise; FDA and labels in fine-tuning are asked
    for."""
    unasked = {"fda": 0.0, "labels": 0.0} if TASKS[task].objective == "finetune" else {}
    return {loss: weights.get(loss, unasked.get(loss, 1.0)) for loss in LOSSES_OF[TASKS[task].objective]}
