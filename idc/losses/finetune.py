"""Fine-tuning: the caption under the causal mask, changed or not, FDA beside them (equation 7 of docs/method.md).

Batch: caption (B, L), or (B, R, L) for R references of a pair; masked form: caption_masked, caption_labels instead.
Optional: changed (B,), -1 = unknown; caption_with_negatives, as of `fda`; present, as of `labels`: named at the tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from idc.losses import fda, labels
from idc.losses.objective import Batch, Objective, ObjectiveOptions, Room
from idc.losses.places import only_real, scored_words
from idc.losses.words import word_loss
from idc.model.config import NOT_SCORED
from idc.model.layers import upcast

if TYPE_CHECKING:
    from idc.model.trunk import Trunk


def prepare(batch: dict[str, Tensor], room: Room) -> dict[str, float]:
    """Adds the places of the scored words; counts words, pairs that are known to have changed or not, and pairs."""
    real = batch.get("real")
    if "caption_labels" in batch:
        words = batch["caption_labels"]
    else:
        following = batch["caption"][..., 1:]
        words = following.masked_fill(following == room.pad, NOT_SCORED)
    counts = {"caption": scored_words(batch, words, real, room.multiple)}
    if "changed" in batch:
        batch["changed"] = only_real(batch["changed"].flatten(), real, NOT_SCORED)
        counts["changed"] = float((batch["changed"] != NOT_SCORED).sum())
    if "caption_with_negatives" in batch:
        counts |= fda.prepare(batch, room)
    if "present" in batch:
        counts |= labels.prepare(batch, room)
    return counts


def parts(model: Trunk, batch: Batch, options: ObjectiveOptions) -> tuple[dict[str, Tensor], None]:
    """Fine-tuning: the caption under the causal mask, changed or not, and FDA where the batch has negatives."""
    masked = model.config.caption_loss == "masked"
    assert masked == ("caption_masked" in batch), "caption_masked belongs to caption_loss 'masked', and to it alone"
    pair = model.encode_pair(model.embed_images(batch))
    words = batch["caption_masked"] if masked else batch["caption"][..., :-1]
    fused = model.cross_modal_causal(pair, words)
    sums = {"caption": word_loss(model, pair, fused, batch, options)}
    if "changed" in batch:
        logits = upcast(model.changed_logits(pair, fused.images))
        sums["changed"] = functional.cross_entropy(logits, batch["changed"], reduction="sum", ignore_index=NOT_SCORED)
    if "caption_with_negatives" in batch:
        sums["fda"] = fda.aligned(model, pair, batch, options)
    if "present" in batch:
        named = model.region_labels(pair, batch["present"])[batch["label_rows"]]
        sums["labels"] = (named * batch["label_weights"]).sum()
    return sums, None


FINETUNE = Objective(
    "finetune", ("caption",), prepare, parts,
    only_with={"changed": "changed", "fda": "caption_with_negatives", "labels": "present"},
)  # fmt: skip
