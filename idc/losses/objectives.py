"""What is trained: MLM, MVCL, FDA, classification, captioning, changed/unchanged.

Every loss comes as a sum and the count it is to be divided by. Counts follow from the batch alone
(`idc.losses.places`), so a caller adds them up over micro-batches and ranks before the first backward pass, divides
each sum by the total, and gets the same loss and gradient however the global batch was cut.

Tasks and their batches (B samples, N cells, F channels, L words, K negatives, T = model.visual_tokens). Images are
`before` and `after` (B, N, F), or one `photo` (B, N, F) for mlm, mvcl and fda; any floating type:

mlm       caption_masked, caption_labels (B, L), label -1 = not scored
mvcl      caption (B, L), visual_mask (B, 2T) bool (photo: (B, T))
fda       caption_with_negatives (B, 1 + K, L), the true caption first; a row of padding alone is no negative
classify  class_before, class_after, same_class (B,)
labels    present (B, classes) 0 or 1: the classes that a photo (B, N, F) shows, or that what is new in a pair shows; a
          row of -1 is not scored; for models that localise them ("idc")
finetune  caption (B, L) or (B, R, L), R references of a pair; masked form: caption_masked, caption_labels instead;
          optional changed (B,), -1 = unknown; optional caption_with_negatives: FDA beside the caption loss
any       optional real (B,) bool: False for rows that only even out a batch

`idc.losses.places.prepare` adds what the losses need to know beforehand. Nothing here asks the device for a value, so a
GPU never waits for the host; a batch that is not prepared is prepared on the spot, which does ask.

MVCL and the class contrast compare samples with one another: inside groups of `contrastive_group` samples, or over the
whole global batch. What they compare comes from `parts`, so that a caller can bring together what several micro-batches
and ranks have and then call `contrast`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from idc.losses.places import COUNTS, TASKS, counts, loss_names, prepare
from idc.model.config import NOT_SCORED
from idc.model.layers import upcast, without_autocast

if TYPE_CHECKING:
    from idc.model.trunk import Fused, PairEncoding, Trunk

__all__ = ["LOSSES", "TASKS", "LossSum", "ObjectiveOptions", "contrast", "counts", "losses", "parts"]

LOSSES = ("mlm", "mvcl", "fda", "class", "match", "class_contrastive", "labels", "caption", "changed")
COMPARED = {"mvcl": "mvcl", "classify": "class_contrastive"}  # the loss of a task that compares samples
MARGIN = 0.4  # cosine below which photos of different classes are far enough apart
NEVER = -1e4  # a score that no softmax sees; finite, so that a row of nothing else has a gradient of zeros, not NaN


def alone(rows: Tensor) -> Tensor:
    """The rows of all ranks, where there is one."""
    return rows


@dataclass(frozen=True)
class ObjectiveOptions:
    """Choices that belong to the losses, not to the model."""

    mvcl_temperature: float = 1.0
    fda_temperature: float = 1.0
    contrastive_group: int = 0  # samples among which MVCL and the class contrastive loss contrast; 0 = the whole batch
    label_smoothing: float = 0.0  # of the word losses (mlm, caption)
    # (n, ...) of this rank -> (ranks * n, ...) of all, with gradient; used where the whole batch is compared.
    gather: Callable[[Tensor], Tensor] = alone
    rank: int = 0

    def __post_init__(self) -> None:
        for field in ("mvcl_temperature", "fda_temperature"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be above 0")
        if self.contrastive_group < 0:
            raise ValueError(f"contrastive_group is {self.contrastive_group}; it must be 0 (the whole batch) or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")


class LossSum(NamedTuple):
    """A scalar sum (float32 or better, differentiable) and what to divide it by, a scalar on the same device."""

    sum: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """sum / count; 0 where there was nothing to score."""
        return self.sum / self.count.clamp_min(1.0)


def losses(
    model: Trunk, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions | None = None
) -> dict[str, LossSum]:
    """Loss name -> sum and count. Weights between losses are the caller's."""
    options = options or ObjectiveOptions()
    batch = prepared(model, task, batch, options)
    sums, compared = parts(model, task, batch, options)
    if compared is not None:
        sums[COMPARED[task]] = contrast(task, compared, options)
    names, count = loss_names(task, batch), batch[COUNTS]
    assert set(sums) == set(names), f"{sorted(sums)} computed, {sorted(names)} counted"
    return {name: LossSum(sums[name], count[place]) for place, name in enumerate(names)}


def prepared(model: Trunk, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> Mapping[str, Tensor]:
    """The batch with places and counts, made here where they are missing."""
    if COUNTS in batch:
        return batch
    some = next(iter(batch.values()))
    host = {name: tensor.cpu() for name, tensor in batch.items() if name not in ("before", "after", "photo")}
    added = prepare(task, host, model.config.pad, options.contrastive_group)
    return {**batch, **{name: tensor.to(some.device) for name, tensor in added.items()}}


def parts(
    model: Trunk, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """(sums of the losses that look at one sample at a time, what the loss compares that looks at several).

    The second is what `contrast` takes, None for the tasks without such a loss. The batch is a prepared one.
    """
    if task == "mlm":
        return {"mlm": masked_words(model, batch, options)}, None
    if task == "mvcl":
        return {}, masked_cells(model, batch)
    if task == "fda":
        pair = model.encode_pair(model.embed_images(batch))
        return {"fda": aligned(model, pair, batch, options)}, None
    if task == "classify":
        return classification(model, batch)
    if task == "labels":
        rows = batch["label_rows"]
        images = [batch[role][rows] for role in ("photo", "before", "after") if role in batch]
        return {"labels": model.image_labels(images, batch["present"][rows]).sum()}, None
    return captioning(model, batch, options), None


def contrast(task: str, compared: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
    """The sum of the loss that compares samples, from what `parts` gave (of several micro-batches: `joined`)."""
    if task == "mvcl":
        return cell_contrast(compared, options).sum()
    return class_contrast(compared, options)


def joined(compared: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several micro-batches compare, as one group: for contrast over the whole batch."""
    return {name: torch.cat([part[name] for part in compared], dim=1) for name in compared[0]}


def word_logits(model: Trunk, pair: PairEncoding, fused: Fused, places: Tensor | None) -> Tensor:
    """Logits (n, V) at n words, places (n,) in the words of all captions, flattened, None = all; float32 or better."""
    return upcast(model.word_logits(fused.text, pair, fused.images, places))


def word_loss(
    model: Trunk, pair: PairEncoding, fused: Fused, batch: Mapping[str, Tensor], options: ObjectiveOptions
) -> Tensor:
    """Cross-entropy summed over the scored words."""
    logits = word_logits(model, pair, fused, batch["word_places"])
    return functional.cross_entropy(
        logits, batch["word_labels"], reduction="sum", ignore_index=NOT_SCORED, label_smoothing=options.label_smoothing
    )


def masked_words(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
    """MLM: the hidden words from the images and the other words; summed over them."""
    pair = model.encode_pair(model.embed_images(batch))
    return word_loss(model, pair, model.cross_modal(pair, batch["caption_masked"]), batch, options)


def masked_cells(model: Trunk, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def cell_contrast(compared: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
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


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 or better."""
    return functional.normalize(upcast(x), dim=-1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Dot products of rows, (..., n, F) with (..., m, F) -> (..., n, m), in their own precision even under autocast."""
    with without_autocast(x):
        return x @ y.transpose(-1, -2)


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


def aligned(model: Trunk, pair: PairEncoding, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
    """FDA summed over the pairs."""
    similarity = caption_similarities(model, pair, batch["caption_with_negatives"])
    loss = alignment(similarity, options.fda_temperature)
    return (loss.masked_fill(~batch["real"], 0.0) if "real" in batch else loss).sum()


def classification(model: Trunk, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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


def class_contrast(compared: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
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


def captioning(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> dict[str, Tensor]:
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
        sums["fda"] = aligned(model, pair, batch, options)
    return sums
