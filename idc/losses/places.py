"""What the losses have to know of a batch before they start: counts, and places of words, cells and rows.

Found once, on the CPU, where the batch is made. On a GPU each of these questions ("which words are scored?") would make
the host wait for the device in the middle of a step; with the places at hand a step is indexing and masks alone, and
its shapes do not depend on values.

Batches of uneven size are evened out by rows that repeat a sample; `real` (B,) bool is False for them. They pass
through the network and count for nothing: their words, cells and classes are marked as not scored here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from idc.model.config import NOT_SCORED, PAD

TASKS = ("mlm", "mvcl", "fda", "classify", "labels", "finetune")
COUNTS = "counts"


def loss_names(task: str, batch: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The losses that a task gives for such a batch, in the order of its counts. ValueError: no such task."""
    if task in ("mlm", "mvcl", "fda", "labels"):
        return (task,)
    if task == "classify":
        return ("class", "match", "class_contrastive")
    if task == "finetune":
        beside = {"changed": "changed", "caption_with_negatives": "fda"}
        return ("caption", *(loss for key, loss in beside.items() if key in batch))
    raise ValueError(f"no task {task!r}; the tasks are {', '.join(TASKS)}")


def counts(task: str, batch: Mapping[str, Tensor], pad: int = PAD) -> dict[str, float]:
    """The denominators of the losses that `objectives.losses` will return for this batch, without a forward pass.

    class_contrastive counts samples: its sum is, over groups, group size x the group's mean over pairs.
    """
    prepared = prepare(task, batch, pad)
    return dict(zip(loss_names(task, batch), prepared[COUNTS].tolist(), strict=True))


def prepare(
    task: str, batch: Mapping[str, Tensor], pad: int = PAD, group: int = 0, hidden: int = 0, multiple: int = 1
) -> dict[str, Tensor]:
    """The batch of a task (see `idc.losses.objectives`) with what its losses need to know beforehand.

    group: contrastive_group, 0 = the whole batch. hidden: room for the hidden cells of each group; 0 = as many as the
    fullest group has. multiple: numbers of words, cells and rows are rounded up to a multiple of it, so that few
    different shapes occur. Added:

    counts         (losses,) float32, in the order of `loss_names`
    word_places    (n,) int64 into the words of all captions, flattened; word_labels (n,): their words, -1 = none
    hidden_places  (groups, P) int64 into the cells of all images (B * 2T), flattened; hidden_known (groups, P) bool:
                   False where a place only fills the room
    label_rows     (n,) int64: the rows whose labels are known
    Raises ValueError where the batch is not made of whole groups.
    """
    names, found = loss_names(task, batch), dict(batch)
    real = batch.get("real")
    ours = dict.fromkeys(names, 0.0)
    if task == "mlm" or "caption_labels" in batch:
        ours[names[0]] = _scored_words(found, batch["caption_labels"], real, multiple)
    elif task == "finetune":
        following = batch["caption"][..., 1:]
        labels = following.masked_fill(following == pad, NOT_SCORED)
        ours["caption"] = _scored_words(found, labels, real, multiple)
    if task == "mvcl":
        found["visual_mask"] = mask = _only_real(batch["visual_mask"].bool(), real, False)
        found["hidden_places"], found["hidden_known"] = _hidden_cells(mask, group, hidden, multiple)
        ours["mvcl"] = float(mask.sum())
    if "caption_with_negatives" in batch:
        ours["fda"] = float(len(batch["caption_with_negatives"]) if real is None else real.sum())
    if "changed" in batch and task == "finetune":
        found["changed"] = _only_real(batch["changed"].flatten(), real, NOT_SCORED)
        ours["changed"] = float((found["changed"] != NOT_SCORED).sum())
    if task == "classify":
        for name in ("class_before", "class_after", "same_class"):
            found[name] = _only_real(batch[name].flatten(), real, NOT_SCORED)
        group_size(len(found["same_class"]), group)
        samples = float((found["same_class"] != NOT_SCORED).sum())
        ours |= {"class": 2 * samples, "match": samples, "class_contrastive": samples}
    if task == "labels":
        known = _only_real(batch["present"][:, 0], real, NOT_SCORED) != NOT_SCORED
        found["label_rows"] = known.nonzero().flatten()
        ours["labels"] = float(known.sum())
    return found | {COUNTS: torch.tensor([ours[name] for name in names])}


def group_size(batch_size: int, group: int) -> int:
    """The samples of one contrastive group. Raises ValueError where the batch is not made of whole groups."""
    if group and batch_size % group:
        raise ValueError(f"a batch of {batch_size} cannot be cut into groups of contrastive_group = {group} samples")
    return group or batch_size


def _only_real(values: Tensor, real: Tensor | None, otherwise: int | bool) -> Tensor:
    """`values` (B, ...) with `otherwise` in the rows that are not real."""
    if real is None:
        return values
    return torch.where(real.view(-1, *[1] * (values.dim() - 1)), values, torch.full((), otherwise, dtype=values.dtype))


def _scored_words(found: dict[str, Tensor], labels: Tensor, real: Tensor | None, multiple: int) -> float:
    """Adds the places and labels of the scored words, labels (B, ..., L); returns how many there are."""
    labels = _only_real(labels, real, NOT_SCORED).flatten()
    places = (labels != NOT_SCORED).nonzero().flatten()
    room = _rounded(len(places), multiple) - len(places)
    found["word_places"] = functional.pad(places, (0, room))
    found["word_labels"] = functional.pad(labels[places], (0, room), value=NOT_SCORED)
    return float(len(places))


def _hidden_cells(mask: Tensor, group: int, room: int, multiple: int) -> tuple[Tensor, Tensor]:
    """visual_mask (B, 2T) -> hidden_places and hidden_known, (groups, P) both."""
    cells = mask.shape[1]
    size = group_size(len(mask), group)
    groups = mask.view(-1, size * cells)
    number = groups.sum(dim=1)
    room = max(_rounded(max(room, int(number.max())), multiple), 1)
    places = torch.zeros(len(groups), room, dtype=torch.int64)
    known = torch.arange(room) < number[:, None]
    inside = groups.nonzero()
    places[known] = inside[:, 0] * size * cells + inside[:, 1]
    return places, known


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
