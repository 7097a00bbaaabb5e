"""Masked visual contrastive learning: the features of hidden cells, among others (equation 2 of docs/method.md).

Batch: caption (B, L), visual_mask (B, 2T) bool, of a photo (B, T), T = model.visual_tokens. Cells are compared inside
groups of `contrastive_group` samples, or over the whole global batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room, dot, unit
from idc.losses.places import hidden_cells, only_real

if TYPE_CHECKING:
    from idc.model.trunk import Trunk

NEVER = -1e4  # a score that no softmax sees; finite, so that a row of nothing else has a gradient of zeros, not NaN


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Adds hidden_places and hidden_known, (groups, P) both; counts the hidden cells."""
    batch["visual_mask"] = mask = only_real(batch["visual_mask"].bool(), batch.get("real"), False)
    batch["hidden_places"], batch["hidden_known"] = hidden_cells(mask, room.group, room.hidden, room.multiple)
    return {"mvcl": float(mask.sum())}


def masked_cells(model: Trunk, batch: Batch) -> dict[str, Tensor]:
    """MVCL: what its contrast compares, in G groups of hidden cells (P of each, padded) and candidates (M of each).

    predicted (G, P, F): the feature head at each hidden cell; true (G, P, F): its features; wrong (G, M, F): the
    feature head at every cell; all of length 1. known (G, P), visible (G, M): False where a row only fills the room,
    or is hidden.
    """
    hidden, places = batch["visual_mask"], batch["hidden_places"]
    groups = len(places)
    truth = model.visual_features(batch)
    pair = model.encode_pair(model.embed_images(batch, hidden))
    visual = pair.visual(model.cross_modal(pair, batch["caption"]).images)  # (B, 2T, d)
    visible = ~hidden
    if pair.valid is not None:
        visible = visible & pair.visual(pair.valid)
    if "real" in batch:
        visible = visible & batch["real"][:, None]
    head = unit(model.feature_head(visual))
    return {
        "predicted": head.flatten(0, 1)[places],
        "true": unit(truth.flatten(0, 1)[places]),
        "wrong": head.reshape(groups, -1, head.shape[-1]),
        "known": batch["hidden_known"],
        "visible": visible.reshape(groups, -1),
    }


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Nothing that looks at one sample alone; what `contrast` compares."""
    return {}, masked_cells(model, batch)


def cell_contrast(compared: Batch, options: ObjectiveOptions) -> Tensor:
    """MVCL: the loss (G, P) of every hidden cell, 0 where a place only fills the room.

    For hidden cell i: u_i the feature head there, v_i its true features; w_k the feature head at every visible cell of
    the group. -log of exp(u_i.v_i / t) over the sum of exp(u_i.v_j / t) and exp(u_i.w_k / t).
    """
    predicted = compared["predicted"]
    true, wrong, known, visible = (compared[name] for name in ("true", "wrong", "known", "visible"))
    right = torch.arange(predicted.shape[1], device=predicted.device)
    if not options.contrastive_group:  # one group: everybody's cells are candidates
        true, wrong, known, visible = (options.gather(rows[0])[None] for rows in (true, wrong, known, visible))
        right = right + options.rank * len(right)
    candidates, counted = torch.cat([true, wrong], dim=1), torch.cat([known, visible], dim=1)
    scores = dot(predicted, candidates) / options.mvcl_temperature
    scores = scores.masked_fill(~counted[:, None], NEVER).flatten(0, 1)
    loss = functional.cross_entropy(scores, right.expand(predicted.shape[:2]).flatten(), reduction="none")
    return loss.view(predicted.shape[:2]).masked_fill(~compared["known"], 0.0)


def contrast(compared: Batch, options: ObjectiveOptions) -> Tensor:
    """MVCL summed over the hidden cells."""
    return cell_contrast(compared, options).sum()


MVCL = Objective(
    "mvcl", ("visual_mask", "caption"), prepare, parts,
    contrast=contrast, trained=("predicted", "wrong"),
)  # fmt: skip
