"""Masked language modelling: the hidden words from the images and the other words (equation 1 of docs/method.md).

Batch: caption_masked, caption_labels (B, L); label -1 = not scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room
from idc.losses.places import scored_words
from idc.losses.words import word_loss

if TYPE_CHECKING:
    from idc.model.trunk import Trunk


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Adds the places of the hidden words; counts them."""
    return {"mlm": scored_words(batch, batch["caption_labels"], batch.get("real"), room.multiple)}


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], None]:
    """Cross-entropy summed over the hidden words."""
    pair = model.encode_pair(model.embed_images(batch))
    return {"mlm": word_loss(model, pair, model.cross_modal(pair, batch["caption_masked"]), batch, options)}, None


MLM = Objective("mlm", ("caption_masked", "caption_labels"), prepare, parts)
