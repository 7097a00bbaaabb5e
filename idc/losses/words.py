"""Logits and losses of words: what `mlm`, `finetune` and the heat map share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from idc.losses.objective import Batch, ObjectiveOptions
from idc.model.config import NOT_SCORED
from idc.model.layers import upcast

if TYPE_CHECKING:
    from idc.model.trunk import Fused, PairEncoding, Trunk


def word_logits(model: Trunk, pair: PairEncoding, fused: Fused, places: Tensor | None) -> Tensor:
    """Logits (n, V) at n words, places (n,) in the words of all captions, flattened, None = all; float32 or better."""
    return upcast(model.word_logits(fused.text, pair, fused.images, places))


def word_loss(model: Trunk, pair: PairEncoding, fused: Fused, batch: Batch, options: ObjectiveOptions) -> Tensor:
    """Cross-entropy summed over the scored words."""
    logits = word_logits(model, pair, fused, batch["word_places"])
    return functional.cross_entropy(
        logits, batch["word_labels"], reduction="sum", ignore_index=NOT_SCORED, label_smoothing=options.label_smoothing
    )
