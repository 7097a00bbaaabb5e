"""Naming what images show, cell by cell: trains the region finder of models that localise classes ("idc").

Batch: present (B, classes) 0 or 1, the classes that a photo (B, N, F) shows, or that what is new in a pair shows; a row
of -1 is not scored. Equation 12 of docs/method.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room
from idc.losses.places import only_real
from idc.model.config import NOT_SCORED

if TYPE_CHECKING:
    from idc.model.trunk import Trunk


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Adds label_rows (n,) int64, the rows whose labels are known, and label_weights (n,), which are 1; counts them.

    If there are none, the first row stands there with weight 0: a network cannot look at no image.
    """
    known = only_real(batch["present"][:, 0], batch.get("real"), NOT_SCORED) != NOT_SCORED
    rows = known.nonzero().flatten()
    batch["label_rows"] = rows if len(rows) else torch.zeros(1, dtype=torch.int64)
    batch["label_weights"] = known[batch["label_rows"]].float()
    return {"labels": float(known.sum())}


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], None]:
    """Summed over the rows whose labels are known."""
    rows = batch["label_rows"]
    images = [batch[role][rows] for role in ("photo", "before", "after") if role in batch]
    losses = model.image_labels(images, batch["present"][rows].clamp_min(0))
    return {"labels": (losses * batch["label_weights"]).sum()}, None


LABELS = Objective("labels", ("present",), prepare, parts)
