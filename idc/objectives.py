"""What is trained: MLM, MVCL, FDA, classification, captioning, changed/unchanged.

Every loss comes as a sum and the count it is to be divided by. Counts follow from the batch alone (`counts`), so a
caller adds them up over micro-batches and ranks before the first backward pass, divides each sum by the total, and gets
the same loss and gradient however the global batch was cut.

Tasks and their batches (B samples, N cells, F channels, L words, K negatives, T = model.visual_tokens). Images are
`before` and `after` (B, N, F), or one `photo` (B, N, F) for mlm, mvcl and fda:

mlm       caption_masked, caption_labels (B, L), label -1 = not scored
mvcl      caption (B, L), visual_mask (B, 2T) bool (photo: (B, T))
fda       caption_with_negatives (B, 1 + K, L), the true caption first; a row of padding alone is no negative
classify  class_before, class_after, same_class (B,)
labels    present (B, classes) 0 or 1: the classes that a photo (B, N, F) shows, or that what is new in a pair shows; a
          row of -1 is not scored; for models that localise them ("idc")
finetune  caption (B, L) or (B, R, L), R references of a pair; masked form: caption_masked, caption_labels instead;
          optional changed (B,), -1 = unknown; optional caption_with_negatives: FDA beside the caption loss
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from idc.config import NOT_SCORED, PAD
from idc.layers import upcast

if TYPE_CHECKING:
    from idc.trunk import Fused, PairEncoding, Trunk

TASKS = ("mlm", "mvcl", "fda", "classify", "labels", "finetune")
LOSSES = ("mlm", "mvcl", "fda", "class", "match", "class_contrastive", "labels", "caption", "changed")
MARGIN = 0.4  # cosine below which photos of different classes are far enough apart


@dataclass(frozen=True)
class ObjectiveOptions:
    """Choices that belong to the losses, not to the model."""

    mvcl_temperature: float = 1.0
    fda_temperature: float = 1.0
    contrastive_group: int = 0  # samples among which MVCL and the class contrastive loss contrast; 0 = the whole batch
    label_smoothing: float = 0.0  # of the word losses (mlm, caption)

    def __post_init__(self) -> None:
        for field in ("mvcl_temperature", "fda_temperature"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be above 0")
        if self.contrastive_group < 0:
            raise ValueError(f"contrastive_group is {self.contrastive_group}; it must be 0 (the whole batch) or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")


class LossSum(NamedTuple):
    """A scalar sum (float32 or better, differentiable) and what to divide it by."""

    sum: Tensor
    count: float

    @property
    def mean(self) -> Tensor:
        """sum / count; 0 where there was nothing to score."""
        return self.sum / max(self.count, 1.0)


def counts(task: str, batch: Mapping[str, Tensor], pad: int = PAD) -> dict[str, float]:
    """The denominators of the losses that `losses` will return for this batch, without a forward pass.

    class_contrastive counts samples: its sum is, over groups, group size x the group's mean over pairs.
    """
    if task == "mlm":
        return {"mlm": float((batch["caption_labels"] != NOT_SCORED).sum())}
    if task == "mvcl":
        return {"mvcl": float(batch["visual_mask"].sum())}
    if task == "fda":
        return {"fda": float(len(batch["caption_with_negatives"]))}
    if task == "classify":
        samples = float(len(batch["same_class"]))
        return {"class": 2 * samples, "match": samples, "class_contrastive": samples}
    if task == "labels":
        return {"labels": float((batch["present"][:, 0] != NOT_SCORED).sum())}
    if task == "finetune":
        if "caption_masked" in batch:
            found = {"caption": float((batch["caption_labels"] != NOT_SCORED).sum())}
        else:
            found = {"caption": float((batch["caption"][..., 1:] != pad).sum())}
        if "changed" in batch:
            found["changed"] = float((batch["changed"] != NOT_SCORED).sum())
        if "caption_with_negatives" in batch:
            found["fda"] = float(len(batch["caption_with_negatives"]))
        return found
    raise ValueError(f"no task {task!r}; the tasks are {', '.join(TASKS)}")


def losses(model: Trunk, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> dict[str, LossSum]:
    """Loss name -> sum and count. Weights between losses are the caller's."""
    count = counts(task, batch, model.config.pad)
    if task == "mlm":
        sums = {"mlm": masked_words(model, batch, options)}
    elif task == "mvcl":
        sums = {"mvcl": masked_cells(model, batch, options).sum()}
    elif task == "fda":
        pair = model.encode_pair(model.embed_images(batch))
        similarity = caption_similarities(model, pair, batch["caption_with_negatives"])
        sums = {"fda": alignment(similarity, options.fda_temperature).sum()}
    elif task == "classify":
        sums = classification(model, batch, options)
    elif task == "labels":
        known = batch["present"][:, 0] != NOT_SCORED
        images = [batch[role][known] for role in ("photo", "before", "after") if role in batch]
        sums = {"labels": model.image_labels(images, batch["present"][known]).sum()}
    else:
        sums = captioning(model, batch, options)
    assert sums.keys() == count.keys(), f"{sorted(sums)} computed, {sorted(count)} counted"
    return {name: LossSum(value, count[name]) for name, value in sums.items()}


def word_logits(model: Trunk, pair: PairEncoding, fused: Fused, labels: Tensor) -> Tensor:
    """Logits (n, V) at the n words whose label (B, ..., L) is scored, in row order; float32 or better."""
    return upcast(model.word_logits(fused.text, pair, fused.images, labels != NOT_SCORED))


def word_loss(model: Trunk, pair: PairEncoding, fused: Fused, labels: Tensor, options: ObjectiveOptions) -> Tensor:
    """Cross-entropy summed over the scored words."""
    logits, targets = word_logits(model, pair, fused, labels), labels[labels != NOT_SCORED]
    return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=options.label_smoothing)


def masked_words(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
    """MLM: the hidden words from the images and the other words; summed over them."""
    pair = model.encode_pair(model.embed_images(batch))
    return word_loss(model, pair, model.cross_modal(pair, batch["caption_masked"]), batch["caption_labels"], options)


def group_size(batch_size: int, group: int) -> int:
    """The samples of one contrastive group. Raises ValueError where the batch is not made of whole groups."""
    if group and batch_size % group:
        raise ValueError(f"a batch of {batch_size} cannot be cut into groups of contrastive_group = {group} samples")
    return group or batch_size


def masked_cells(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> Tensor:
    """MVCL: the loss (n,) of every hidden visual token, in row order.

    For hidden token i: u_i the feature head there, v_i its true features; w_k the feature head at every visible token
    of the group. -log of exp(u_i.v_i / t) over the sum of exp(u_i.v_j / t) and exp(u_i.w_k / t), all normalised.
    """
    hidden_tokens = batch["visual_mask"].bool()
    size = group_size(len(hidden_tokens), options.contrastive_group)
    pair = model.encode_pair(model.embed_images(batch, hidden_tokens))
    visual = pair.visual(model.cross_modal(pair, batch["caption"]).images)  # (B, 2T, d)
    visible = ~hidden_tokens
    if pair.valid is not None:
        visible = visible & pair.visual(pair.valid)
    truth = model.visual_features(batch)
    found = []
    for start in range(0, len(hidden_tokens), size):
        rows = slice(start, start + size)
        hidden, others = hidden_tokens[rows], visible[rows]
        predicted = unit(model.feature_head(visual[rows][hidden]))  # u (n, F)
        true = unit(truth[rows][hidden])  # v (n, F)
        wrong = unit(model.feature_head(visual[rows][others]))  # w (m, F)
        scores = dot(predicted, torch.cat([true, wrong])) / options.mvcl_temperature
        targets = torch.arange(len(predicted), device=scores.device)
        found.append(functional.cross_entropy(scores, targets, reduction="none"))
    return torch.cat(found)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 or better."""
    return functional.normalize(upcast(x), dim=-1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Dot products of rows, (..., n, F) with (..., m, F) -> (..., n, m), in their own precision even under autocast."""
    with torch.autocast(x.device.type, enabled=False):
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


def classification(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> dict[str, Tensor]:
    """Pairs of class-labelled photos; trains the image difference encoder alone."""
    if not model.config.classes:
        raise ValueError("the classify task needs a model with classes; set classes to their number")
    pair = model.encode_pair(model.embed_images(batch))
    labels = torch.stack([batch["class_before"].flatten(), batch["class_after"].flatten()], dim=1)  # (B, 2)
    class_logits = upcast(model.class_head(pair.single_cls))  # (B, 2, classes)
    match_logits = upcast(model.match_head(torch.cat(pair.both_cls(pair.tokens), dim=-1)))
    return {
        "class": functional.cross_entropy(class_logits.flatten(0, 1), labels.flatten(), reduction="sum"),
        "match": functional.cross_entropy(match_logits, batch["same_class"].flatten(), reduction="sum"),
        "class_contrastive": class_contrast(pair.single_cls, labels, options.contrastive_group),
    }


def class_contrast(cls: Tensor, labels: Tensor, group: int) -> Tensor:
    """Photos of a class together, others at least a margin apart; cls (B, 2, d), labels (B, 2).

    In each group of g samples (2g photos): (sum over ordered same-class pairs of 1 - cos, over others of
    max(cos - 0.4, 0)) / (2g)^2. Returns the sum over groups, each times g.
    """
    size = group_size(len(cls), group)
    photos = unit(cls).view(-1, 2 * size, cls.shape[-1])
    classes = labels.view(-1, 2 * size)
    cosine = dot(photos, photos)
    same = classes[:, :, None] == classes[:, None, :]
    cost = torch.where(same, 1 - cosine, (cosine - MARGIN).clamp_min(0))
    return size * cost.mean(dim=(1, 2)).sum()


def captioning(model: Trunk, batch: Mapping[str, Tensor], options: ObjectiveOptions) -> dict[str, Tensor]:
    """Fine-tuning: the caption under the causal mask, changed or not, and FDA where the batch has negatives."""
    masked = model.config.caption_loss == "masked"
    assert masked == ("caption_masked" in batch), "caption_masked belongs to caption_loss 'masked', and to it alone"
    pair = model.encode_pair(model.embed_images(batch))
    if masked:
        words, labels = batch["caption_masked"], batch["caption_labels"]
    else:
        words, following = batch["caption"][..., :-1], batch["caption"][..., 1:]
        labels = following.masked_fill(following == model.config.pad, NOT_SCORED)
    fused = model.cross_modal_causal(pair, words)
    sums = {"caption": word_loss(model, pair, fused, labels, options)}
    if "changed" in batch:
        logits = upcast(model.changed_logits(pair, fused.images))
        changed = batch["changed"].flatten()
        sums["changed"] = functional.cross_entropy(logits, changed, reduction="sum", ignore_index=NOT_SCORED)
    if "caption_with_negatives" in batch:
        similarity = caption_similarities(model, pair, batch["caption_with_negatives"])
        sums["fda"] = alignment(similarity, options.fda_temperature).sum()
    return sums
