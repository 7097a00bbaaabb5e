"""What every architecture shares: embeddings, image difference encoder, cross-modal transformer, heads, decoding steps.

An architecture turns its images into embedded visual tokens (`embed_images`) and says what masked visual contrastive
learning should predict (`visual_features`, `feature_head`); the rest is here.

Shapes: B samples, T visual tokens an image, S = 2T + 2 tokens of a pair (T + 2 of a photo), R captions a sample,
L words, d = d_model, V words of the vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig
from idc.model.layers import KeyValueCache, Sight, Stack, layer_norm, sinusoid, upcast

# Rows of the token type table; row 0 is never used.
CLS_BEFORE, BEFORE, CLS_AFTER, AFTER, CLS_TEXT, TEXT = range(1, 7)


@dataclass(frozen=True)
class ImageTokens:
    """Embedded visual tokens (B, T, d) of two images, without the CLS tokens; a photo has no `after`.

    valid: bool (B, T), False for tokens that stand for nothing; None = all stand for something.
    classes: (B, 2P, C) probabilities of what the first P tokens of each image show, before first (photo: (B, P, C));
    None = not known. novelty: (B, 2P) how new these are beside the other image, 0 to 1. overall: (B, 2, d) what the CLS
    tokens are told of the two images beside one another. position: (B, 2P, 2) where these lie in the image;
    score: (B, 2P) logit that they show something.
    """

    before: Tensor
    after: Tensor | None = None
    before_valid: Tensor | None = None
    after_valid: Tensor | None = None
    classes: Tensor | None = None
    novelty: Tensor | None = None
    overall: Tensor | None = None
    position: Tensor | None = None
    score: Tensor | None = None


@dataclass(frozen=True)
class PairEncoding:
    """The image difference encoder's output: [cls-before, before, cls-after, after].

    Of a photo: [cls-before, photo, cls-after].
    """

    tokens: Tensor  # (B, S, d)
    valid: Tensor | None  # (B, S) bool
    single_cls: Tensor  # (B, 2, d): the two CLS tokens after the single-image block
    width: int  # T
    classes: Tensor | None = None  # (B, 2P, C), as in ImageTokens
    novelty: Tensor | None = None  # (B, 2P), as in ImageTokens
    position: Tensor | None = None  # (B, 2P, 2), as in ImageTokens
    score: Tensor | None = None  # (B, 2P), as in ImageTokens

    def both_cls(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The cls-before and cls-after rows, each (B, d), of `hidden` (B, >= S, d) laid out like `tokens`."""
        return hidden[:, 0], hidden[:, self.width + 1]

    def visual(self, hidden: Tensor) -> Tensor:
        """The visual rows of `hidden` (or of a (B, S) mask), before then after: (B, 2T, ...), photo (B, T, ...)."""
        end = self.tokens.shape[1]
        return torch.cat([hidden[:, 1 : self.width + 1], hidden[:, self.width + 2 : end]], dim=1)

    def repeat(self, times: int) -> PairEncoding:
        """Each sample `times` times, as neighbours."""
        each: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in each.items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.repeat_interleave(times, dim=0) for name, value in tensors.items()})


@dataclass(frozen=True)
class Fused:
    """The cross-modal transformer's output."""

    images: Tensor  # (B, S, d)
    text: Tensor  # (B, L, d), or (B, R, L, d) where R captions were given
    cls_text: Tensor | None  # (B, d); None in the causal form


class Embedding(nn.Module):
    """Words, token types and text positions; one layer norm and dropout for tokens of every kind."""

    positions: Tensor  # (L, d)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5
        self.cls_id = config.cls
        self.words = nn.Embedding(config.vocab_size, config.d_model)
        self.types = nn.Embedding(7, config.d_model)
        self.norm = layer_norm(config, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("positions", sinusoid(config.max_length, config.d_model), persistent=False)

    def _finish(self, tokens: Tensor, kind: int) -> Tensor:
        row = self.types(torch.full((), kind, device=tokens.device))
        return self.dropout(self.norm(tokens + row))

    def text(self, ids: Tensor, start: int = 0) -> Tensor:
        """(..., L) ids at positions start, start + 1, ... -> (..., L, d)."""
        positions = self.positions[start : start + ids.shape[-1]]
        return self._finish(self.words(ids) * self.scale + positions, TEXT)

    def cls(self, kind: int, batch: int) -> Tensor:
        """(B, 1, d): the word embedding of <cls>, unscaled, with its type and no position."""
        ids = torch.full((batch, 1), self.cls_id, device=self.positions.device)
        return self._finish(self.words(ids), kind)

    def visual(self, tokens: Tensor, kind: int) -> Tensor:
        """(B, T, d) projected tokens, positions added already -> (B, T, d)."""
        return self._finish(tokens, kind)


class Trunk(nn.Module, ABC):
    """Base of the architectures."""

    # In captioning, whether the image tokens pass through the cross-modal blocks, as the published ones do, or are read
    # by the words as the image difference encoder left them.
    rewrites_images = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.single_image = Stack(config, 1)
        self.pair_image = Stack(config, 1)
        self.cross_modal_stack = Stack(config, config.cross_modal_blocks)
        self.word_head = nn.Linear(config.d_model, config.vocab_size)
        self.changed_head = nn.Linear(2 * config.d_model, 2)
        if config.classes:
            self.class_head = nn.Linear(config.d_model, config.classes)
            self.match_head = nn.Linear(2 * config.d_model, 2)

    # ---- what an architecture adds

    @property
    @abstractmethod
    def visual_tokens(self) -> int:
        """T, the tokens of one image that masked visual contrastive learning may mask."""

    @abstractmethod
    def embed_images(self, batch: Mapping[str, Tensor], visual_mask: Tensor | None = None) -> ImageTokens:
        """`before` and `after` (or `photo`) of the batch, (B, N, F) each -> visual tokens.

        visual_mask: bool (B, 2T) (photo: (B, T)), tokens whose content is hidden, before first.
        """

    @abstractmethod
    def visual_features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, 2T, F') (photo: (B, T, F')): the true features that the feature head should name at a hidden token."""

    @abstractmethod
    def feature_head(self, hidden: Tensor) -> Tensor:
        """(n, d) -> (n, F')."""

    def image_labels(self, images: Sequence[Tensor], present: Tensor) -> Tensor:
        """The loss (B,) of naming what one or two images (B, N, F) show, present (B, classes). ValueError: not here."""
        raise ValueError('the task "labels" needs a model that localises classes: set architecture to "idc"')

    def region_labels(self, pair: PairEncoding, present: Tensor) -> Tensor:
        """The same of what is new in pairs, by what their tokens have been found to show. ValueError: not here."""
        raise ValueError('labels of pairs need a model that localises classes: set architecture to "idc"')

    def name_classes(self, words: Tensor) -> None:
        """Tells the model the words (classes, W) of each class's name, padded; of no use to the published network."""

    def standardise(self, features: Tensor) -> None:
        """Takes note of how features (n, N, F) of training images are spread; the published network takes them as they
        are."""

    # ---- encoding

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.changed_head.weight.dtype

    def encode_pair(self, images: ImageTokens) -> PairEncoding:
        """The image difference encoder: one single-image block over each image, one pair-image block over both."""
        batch, width, _ = images.before.shape
        cls_before, cls_after = self.embedding.cls(CLS_BEFORE, batch), self.embedding.cls(CLS_AFTER, batch)
        if images.overall is not None:
            cls_before, cls_after = cls_before + images.overall[:, :1], cls_after + images.overall[:, 1:]
        before = torch.cat([cls_before, images.before], dim=1)
        if images.after is None:  # cls-after stands for an image that is not there: it skips the single-image block
            valid = with_cls(images.before_valid)
            before, after = self.single_image(before, key_mask(valid)), cls_after
            valid = None if valid is None else functional.pad(valid, (0, 1), value=True)
        else:
            assert images.after.shape == images.before.shape, "both images have the same number of tokens"
            after = torch.cat([cls_after, images.after], dim=1)
            valid_before, valid_after = with_cls(images.before_valid), with_cls(images.after_valid)
            assert (valid_before is None) == (valid_after is None), "validity is given for both images or for none"
            valid = None if valid_before is None or valid_after is None else torch.cat([valid_before, valid_after])
            before, after = self.single_image(torch.cat([before, after]), key_mask(valid)).chunk(2)
            valid = None if valid is None else torch.cat(valid.chunk(2), dim=1)
        tokens = self.pair_image(torch.cat([before, after], dim=1), key_mask(valid))
        cls = torch.stack([before[:, 0], after[:, 0]], dim=1)
        found = (images.classes, images.novelty, images.position, images.score)
        return PairEncoding(tokens, valid, cls, width, *found)

    def cross_modal(self, pair: PairEncoding, caption: Tensor) -> Fused:
        """Pre-training form, every token sees every token: [images, cls-text, text]. caption: ids (B, L)."""
        batch, length = caption.shape
        size = pair.tokens.shape[1]
        tokens = torch.cat([pair.tokens, self.embedding.cls(CLS_TEXT, batch), self.embedding.text(caption)], dim=1)
        valid = None
        if self.config.mask_padding or pair.valid is not None:
            words = (caption != self.config.pad) | (not self.config.mask_padding)
            images = pair.valid if pair.valid is not None else words.new_ones(batch, size)
            valid = torch.cat([images, functional.pad(words, (1, 0), value=True)], dim=1)
        hidden = self.cross_modal_stack(tokens, key_mask(valid))
        return Fused(hidden[:, :size], hidden[:, size + 1 :], hidden[:, size])

    def cross_modal_causal(self, pair: PairEncoding, caption: Tensor) -> Fused:
        """Captioning form: images see images, a word sees the images and its caption up to itself; no cls-text.

        caption: ids (B, L), or (B, R, L): R captions of the same pair, blind to one another, for one image pass.
        """
        size, length = pair.tokens.shape[1], caption.shape[-1]
        captions = 1 if caption.dim() == 2 else caption.shape[1]
        text = self.embedding.text(caption).flatten(1, -2)
        words = captions * length
        same_caption = torch.arange(words, device=caption.device) // length
        visible = torch.zeros(size + words, size + words, dtype=torch.bool, device=caption.device)
        visible[:, :size] = True
        visible[size:, size:] = (same_caption[:, None] == same_caption[None, :]).tril()
        if not self.rewrites_images:
            assert pair.valid is None, "all tokens are there"
            said = self.cross_modal_stack(text, visible[None, None, size:], memory=pair.tokens)
            return Fused(pair.tokens, said.reshape(*caption.shape, -1), None)
        mask = visible[None, None]
        if pair.valid is not None:
            mask = mask & key_mask(functional.pad(pair.valid, (0, words), value=True))
        hidden = self.cross_modal_stack(torch.cat([pair.tokens, text], dim=1), mask)
        return Fused(hidden[:, :size], hidden[:, size:].reshape(*caption.shape, -1), None)

    def changed_logits(self, pair: PairEncoding, images: Tensor) -> Tensor:
        """(B, 2): unchanged, changed; from the image rows (B, S, d) of the captioning form."""
        return self.changed_head(torch.cat(pair.both_cls(images), dim=-1))

    def word_logits(self, text: Tensor, pair: PairEncoding, images: Tensor, places: Tensor | None) -> Tensor:
        """Logits (n, V) at words of text (B, ..., d): places (n,) int64 into its words, flattened; None = all of them.

        images: the image rows (B, S, d) of the transformer's output; of use to architectures that point at them.
        """
        words = text.flatten(0, -2)
        return self.word_head(words if places is None else words[places])

    def pointed_at(self, pair: PairEncoding, captions: Tensor) -> Tensor | None:
        """(B, 2T): how much the words of captions (B, L) point at each visual token; None: this network does not."""
        return None

    def profile(self, images: Mapping[str, Tensor], pair: PairEncoding) -> Tensor:
        """(B, k) float32: what pairs look like to this network in a few numbers, by which it tells familiar ones.

        Of images as `on_grid` takes them; here mean and deviation of each channel over all cells.
        """
        both = upcast(torch.cat([images["before"], images["after"]], dim=1))
        return torch.cat([both.mean(1), both.std(1)], dim=-1)

    @abstractmethod
    def on_grid(self, images: Mapping[str, Tensor], pair: PairEncoding, share: Tensor) -> Tensor:
        """A number of every visual token, (B, 2T), at its place in the two images: (B, 2, rows, columns).

        images: `before` and `after` (B, N, F), of which `pair` is the encoding."""

    # ---- decoding

    def start_captions(self, images: Mapping[str, Tensor], max_length: int, beam: int = 1) -> tuple[Decoding, Tensor]:
        """Encodes the images once, for `beam` captions of each pair.

        Returns the state that `next_word` goes on from, and the changed logits (B, 2).
        """
        pair = self.encode_pair(self.embed_images(images))
        size = pair.tokens.shape[1]
        masks = self.config.caption_loss == "masked"
        caches = [KeyValueCache(size + beam * (max_length + masks)) for _ in self.cross_modal_stack.blocks]
        if self.rewrites_images:
            hidden = self.cross_modal_stack(pair.tokens, key_mask(pair.valid), caches)
        else:
            hidden = pair.tokens
            self.cross_modal_stack.remember(hidden, caches)
        for cache in caches:
            cache.keep(size)
        sight = None
        if masks or beam > 1 or pair.valid is not None:
            assert caches[0].keys is not None
            sight = Sight(caches[0].keys, size, pair.valid, beam, masks)
        return Decoding(caches, pair, hidden, beam, sight), self.changed_logits(pair, hidden)

    def next_word(self, state: Decoding, words: Tensor) -> Tensor:
        """Appends words (B, beam) to the captions and returns the logits (B, beam, V) of the word after each.

        Words see nothing that comes later, so the cache is exact. With the masked caption loss <mask> is fed after
        the words, read out, and forgotten; with the causal loss the words themselves are read out.
        """
        tokens = words[..., None]
        if self.config.caption_loss == "masked":
            tokens = functional.pad(tokens, (0, 1), value=self.config.mask)
        # The words of all captions first, then the masks: what stays in the caches is what comes first.
        fed = self.embedding.text(tokens, start=state.words).transpose(1, 2).flatten(1, 2)
        mask = None if state.sight is None else state.sight.step()
        last = self.cross_modal_stack(fed, mask, state.caches)[:, -state.beam :]
        for cache in state.caches:
            cache.keep(state.beam)
        state.words += 1
        return self.word_logits(last, state.pair, state.hidden, None).view(*words.shape, -1)


@dataclass
class Decoding:
    """What has been seen of `beam` captions of each pair under way."""

    caches: list[KeyValueCache]
    pair: PairEncoding
    hidden: Tensor  # (B, S, d): the image rows of the transformer's output
    beam: int
    sight: Sight | None  # None: one caption a pair, which sees all there is
    words: int = 0  # of each caption

    def reorder(self, origin: Tensor) -> None:
        """Caption i of a pair goes on from its caption origin[i], (B, beam)."""
        if self.sight is not None:
            self.sight.reorder(origin)


@overload
def key_mask(valid: Tensor) -> Tensor: ...
@overload
def key_mask(valid: Tensor | None) -> Tensor | None: ...
def key_mask(valid: Tensor | None) -> Tensor | None:
    """(B, K) bool -> the attention mask (B, 1, 1, K): every query sees the valid keys."""
    return None if valid is None else valid[:, None, None, :]


def with_cls(valid: Tensor | None) -> Tensor | None:
    """(B, T) -> (B, 1 + T): a CLS token, always valid, comes first."""
    return None if valid is None else functional.pad(valid, (1, 0), value=True)
