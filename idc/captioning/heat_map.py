"""Where a caption comes from: how much each place of the two images has to do with its words.

Shapes: B pairs, L words, T visual tokens an image, rows x columns places of an image; before first, then after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from idc.losses.words import word_logits
from idc.model.config import NOT_SCORED
from idc.model.trunk import PairEncoding, Trunk


def change_map(
    model: Trunk, images: Mapping[str, Tensor], captions: Tensor, pair: PairEncoding | None = None
) -> Tensor:
    """(B, 2, rows, columns) float32, 0 or more: what in `before` and `after` (B, N, F) the captions (B, L) are about.

    A model that points at what it says is taken at its word; for others the gradient tells. Dropout is off. pair: the
    images' encoding by this model, as `decoding.generate` gives it; None = they are encoded now.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if pair is None:
                pair = model.encode_pair(model.embed_images(images))
            pair = replace(pair, tokens=pair.tokens.to(model.dtype))  # sentences may be made in bf16
            share = model.pointed_at(pair, captions)
        if share is None:
            share = by_gradient(model, images, captions)
        with torch.no_grad():
            return model.on_grid(images, pair, share).float()
    finally:
        model.train(training)


def by_gradient(model: Trunk, images: Mapping[str, Tensor], captions: Tensor) -> Tensor:
    """Gradient times input of every visual token, (B, 2T): how the caption's log-probability would change if the token
    were scaled; absolute. With the masked caption loss all words are hidden at once."""
    with torch.enable_grad():
        tokens = model.embed_images(images)
        assert tokens.after is not None, "captions are of pairs"
        leaves = [side.detach().requires_grad_() for side in (tokens.before, tokens.after)]
        pair = model.encode_pair(replace(tokens, before=leaves[0], after=leaves[1]))
        padding = captions == model.config.pad
        if model.config.caption_loss == "masked":
            labels = captions.masked_fill(padding, NOT_SCORED)
            labels[:, 0] = NOT_SCORED
            words = captions.masked_fill(labels != NOT_SCORED, model.config.mask)
        else:
            words, labels = captions[:, :-1], captions[:, 1:].masked_fill(padding[:, 1:], NOT_SCORED)
        logits = word_logits(model, pair, model.cross_modal_causal(pair, words), None)
        spoken = labels.flatten()
        said = logits.log_softmax(-1).gather(1, spoken.clamp_min(0)[:, None])[:, 0]
        said = said.masked_fill(spoken == NOT_SCORED, 0.0).sum()
        gradients = torch.autograd.grad(said, leaves)
    found = [(gradient * leaf).sum(-1).abs() for gradient, leaf in zip(gradients, leaves, strict=True)]
    return torch.cat(found, dim=1).detach()
