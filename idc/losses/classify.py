"""Pairs of class-labelled photos: their classes, whether they are of the same, and classes apart (equations 4 to 6).

Batch: class_before, class_after, same_class (B,). Trains the image difference encoder alone. Photos are compared inside
groups of `contrastive_group` samples, or over the whole global batch. Equations: docs/method.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room, dot, unit
from idc.losses.places import group_size, only_real
from idc.model.config import NOT_SCORED
from idc.model.layers import upcast

if TYPE_CHECKING:
    from idc.model.trunk import Trunk

MARGIN = 0.4  # cosine below which photos of different classes are far enough apart


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Marks rows that are not real. The contrast counts samples: it sums, over groups, their size x their mean."""
    for name in ("class_before", "class_after", "same_class"):
        batch[name] = only_real(batch[name].flatten(), batch.get("real"), NOT_SCORED)
    group_size(len(batch["same_class"]), room.group)
    samples = float((batch["same_class"] != NOT_SCORED).sum())
    return {"class": 2 * samples, "match": samples, "class_contrastive": samples}


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pairs of class-labelled photos; trains the image difference encoder alone.

    Returns the sums of the class and the match loss, and what the class contrast compares: photos (1, 2B, d) of length
    1 and their classes (1, 2B), -1 for those that are not real.
    """
    if not model.config.classes:
        raise ValueError("the classify task needs a model with classes; set classes to their number")
    pair = model.encode_pair(model.embed_images(batch))
    labels = torch.stack([batch["class_before"], batch["class_after"]], dim=1).flatten()  # (2B,)
    class_logits = upcast(model.class_head(pair.single_cls)).flatten(0, 1)  # (2B, classes)
    match_logits = upcast(model.match_head(torch.cat(pair.both_cls(pair.tokens), dim=-1)))
    sums = {
        "class": functional.cross_entropy(class_logits, labels, reduction="sum", ignore_index=NOT_SCORED),
        "match": functional.cross_entropy(match_logits, batch["same_class"], reduction="sum", ignore_index=NOT_SCORED),
    }
    return sums, {"photos": unit(pair.single_cls).flatten(0, 1)[None], "classes": labels[None]}


def class_contrast(compared: Batch, options: ObjectiveOptions) -> Tensor:
    """Photos of a class together, others at least a margin apart; photos (1, 2B, d), classes (1, 2B).

    In each group of g samples (2g photos): (sum over ordered same-class pairs of 1 - cos, over others of
    max(cos - 0.4, 0)) / (2g)^2. Returns the sum over groups, each times g.
    """
    size = 2 * options.contrastive_group or compared["photos"].shape[1]
    photos = compared["photos"].view(-1, size, compared["photos"].shape[-1])
    classes = compared["classes"].view(-1, size)
    others, other_classes = photos, classes
    if not options.contrastive_group:
        others, other_classes = options.gather(photos[0])[None], options.gather(classes[0])[None]
    cosine = dot(photos, others.to(photos.dtype))
    same = classes[:, :, None] == other_classes[:, None, :]
    cost = torch.where(same, 1 - cosine, (cosine - MARGIN).clamp_min(0))
    real = (classes != NOT_SCORED)[:, :, None] & (other_classes != NOT_SCORED)[:, None, :]
    number = (other_classes != NOT_SCORED).sum(dim=1).clamp_min(1)  # 2g photos of each group
    return (cost.masked_fill(~real, 0.0).sum(dim=(1, 2)) / (2 * number)).sum()


CLASSIFY = Objective(
    "classify", ("class_before", "class_after", "same_class"), prepare, parts,
    contrast=class_contrast, trained=("photos",),
)  # fmt: skip
