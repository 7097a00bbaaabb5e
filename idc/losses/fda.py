"""Fine-grained difference aligning: a pair's caption among false ones (equation 3 of docs/method.md).

Batch: caption_with_negatives (B, 1 + K, L), the true caption first; a row of padding alone is no negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room, unit

if TYPE_CHECKING:
    from idc.model.trunk import Fused, PairEncoding, Trunk


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Counts the pairs."""
    real = batch.get("real")
    return {"fda": float(len(batch["caption_with_negatives"]) if real is None else real.sum())}


def caption_similarities(model: Trunk, pair: PairEncoding, captions: Tensor) -> Tensor:
    """(B, 1 + K) cosines of the pair with captions (B, 1 + K, L), both after fusion; -inf where there is no caption."""
    choices = captions.shape[1]
    repeated = pair.repeat(choices)
    fused: Fused = model.cross_modal(repeated, captions.flatten(0, 1))
    before, after = repeated.both_cls(fused.images)
    assert fused.cls_text is not None
    similarity = (unit((before + after) / 2) * unit(fused.cls_text)).sum(dim=-1).view(-1, choices)
    absent = (captions == model.config.pad).all(dim=-1)
    return similarity.masked_fill(absent, float("-inf"))


def alignment(similarity: Tensor, temperature: float) -> Tensor:
    """FDA: the loss (B,) of choosing the true caption, column 0, by similarity (B, 1 + K)."""
    targets = torch.zeros(len(similarity), dtype=torch.long, device=similarity.device)
    return functional.cross_entropy(similarity / temperature, targets, reduction="none")


def aligned(model: Trunk, pair: PairEncoding, batch: Batch, options: ObjectiveOptions) -> Tensor:
    """FDA summed over the pairs."""
    similarity = caption_similarities(model, pair, batch["caption_with_negatives"])
    loss = alignment(similarity, options.fda_temperature)
    return (loss.masked_fill(~batch["real"], 0.0) if "real" in batch else loss).sum()


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], None]:
    """The loss of choosing the true caption, summed over the pairs."""
    pair = model.encode_pair(model.embed_images(batch))
    return {"fda": aligned(model, pair, batch, options)}, None


FDA = Objective("fda", ("caption_with_negatives",), prepare, parts)
