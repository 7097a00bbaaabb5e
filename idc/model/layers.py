"""The transformer's parts: layer norm, attention with a key-value cache, pre-norm blocks and stacks of them.

Shapes: B samples, T tokens, K keys, H heads, d = d_model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig


def upcast(x: Tensor) -> Tensor:
    """float32 for half precision, unchanged otherwise (float64 stays float64)."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Products inside are made in their operands' own precision; for devices that know autocast at all."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class UnbiasedLayerNorm(nn.Module):
    """`(x - mean) / (std + eps) * weight + bias` with the unbiased std and eps added to the std, not the variance.

    This is the layer norm of the published network; it differs from torch's by sqrt(d / (d - 1)) and by where eps goes.
    Torch's fused kernel normalises, which takes half of the time of separate operations; the rest is a factor for each
    row. Its gradient is small, and all there is of what scaling a whole row does (`idc.captioning.heat_map`). A
    constant row gives the bias. Statistics are taken in float32, the result has the dtype of the input.
    """

    NEVER_ZERO = 1e-30  # added to the variance: a constant row is zeros, not NaN

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        values, size = upcast(x), x.shape[-1]
        normal, _, inverse = torch.native_layer_norm(values, (size,), None, None, self.NEVER_ZERO)
        # The biased deviation, as the kernel found it. Its gradient is that of mean(normal * x), which is equal to it
        # because mean(normal) = 0; torch gives the kernel's statistics none.
        same = (normal.detach() * values).mean(dim=-1, keepdim=True)
        std = 1 / inverse + (same - same.detach())
        factor = std / ((size / (size - 1)) ** 0.5 * std + self.eps)
        return (normal * (factor * self.weight) + self.bias).to(x.dtype)


def layer_norm(config: ModelConfig, eps: float = 1e-6) -> nn.Module:
    """The layer norm that `config.layer_norm` names, over d_model channels."""
    if config.layer_norm == "unbiased":
        return UnbiasedLayerNorm(config.d_model, eps)
    return nn.LayerNorm(config.d_model, eps=max(eps, 1e-6))


class KeyValueCache:
    """Keys and values of the tokens one attention layer has seen: a buffer with room for `room` tokens in all.

    Written in place, so it serves generation alone (no gradients).
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.length = 0  # tokens that stay
        self.keys: Tensor | None = None  # (B, H, room, d / H)
        self.values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (B, H, T, d/H) after the tokens that stay; returns all of them. `keep` says how many of the T stay."""
        if self.keys is None or self.values is None:
            batch, heads, _, width = keys.shape
            self.keys = keys.new_empty(batch, heads, self.room, width)
            self.values = values.new_empty(batch, heads, self.room, width)
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, tokens: int) -> None:
        """The first `tokens` of those appended last stay; the others will be written over."""
        self.length += tokens


class Sight:
    """Which keys each of the captions of a pair under way sees, as attention adds it to its scores: 0, or -inf.

    Keys lie in a cache in the order in which they came: those of the images, then, position by position, one word of
    each caption. A caption that goes on from another's words shares their keys: what changes is who sees them, the same
    for all layers, and nothing in the caches moves.
    """

    def __init__(self, keys: Tensor, images: int, valid: Tensor | None, captions: int, masks: bool) -> None:
        """keys: a cache's (B, H, room, d/H), the first `images` of them of the images, valid where (B, images) says so.

        masks: after each word a <mask> is fed, which the word does not see and which does not stay.
        """
        self._images = self._end = images  # keys of the images; keys that stay
        self._captions, self._masks = captions, masks
        batch, room = (len(keys) if captions > 1 or valid is not None else 1), keys.shape[2]
        # Rows of a multiple of 16 numbers: torch pads others before it calls the fused kernels of GPUs.
        added = keys.new_full((batch, 1 + masks, captions, -(-room // 16) * 16), float("-inf"))
        own = torch.eye(captions, dtype=torch.bool, device=keys.device)
        self._own = keys.new_full(own.shape, float("-inf")).masked_fill_(own, 0.0)  # of the words fed last, one's own
        added[..., :images] = 0.0
        if valid is not None:
            added[..., :images].masked_fill_(~valid[:, None, None], float("-inf"))
        self._added = added  # (B or 1, word and mask, captions, room)

    def step(self) -> Tensor:
        """For one word more of each caption, then a <mask> of each: the mask (B or 1, 1, queries, keys)."""
        start, self._end = self._end, self._end + self._captions
        self._added[..., start : self._end] = self._own
        keys = self._end
        if self._masks:
            keys += self._captions
            self._added[:, 1, :, self._end : keys] = self._own
        return self._added.flatten(1, 2)[:, None, :, :keys]

    def reorder(self, origin: Tensor) -> None:
        """Caption i of a pair goes on from its caption origin[i], (B, captions)."""
        words = self._added[..., self._images : self._end]
        words.copy_(words.gather(2, origin[:, None, :, None].expand_as(words)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(config.d_model, config.d_model)
        self.value = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KeyValueCache | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """(B, T, d) -> (B, T, d).

        memory: (B, M, d) tokens that are looked at and do not look themselves; their keys come before the T.
        mask: bool, broadcastable to (B, 1, T, K), True where a query may look; None = everywhere. A query that may
        look nowhere gets zeros. Or what is added to the scores, in the dtype of the keys: 0 and -inf.
        With a cache the K keys are the cached tokens and then the T new ones.
        """
        batch, tokens, size = x.shape
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # once, not for each of the three
        seen = x if memory is None else torch.cat([memory.to(x.dtype), x], dim=1)
        query, key, value = (
            layer(rows).view(batch, rows.shape[1], self.heads, -1).transpose(1, 2)
            for layer, rows in ((self.query, x), (self.key, seen), (self.value, seen))
        )
        if query.device.type == "cpu":
            # For these lengths torch's fused CPU kernel takes several times as long in bf16 as in float32 (torch 2.13).
            query, key, value = upcast(query), upcast(key), upcast(value)
        if cache is not None:
            key, value = cache.append(key, value)
        dropout = self.dropout if self.training else 0.0
        # Rows of the mask that are False throughout come out as zeros, not NaN ("safe softmax", torch >= 2.5).
        with without_autocast(query):
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.output(mixed.to(x.dtype).transpose(1, 2).reshape(batch, tokens, size))

    def remember(self, memory: Tensor, cache: KeyValueCache) -> None:
        """Fills the cache with the keys and values of `memory` (B, M, d)."""
        key, value = (
            layer(memory).view(*memory.shape[:2], self.heads, -1).transpose(1, 2) for layer in (self.key, self.value)
        )
        cache.append(*((upcast(key), upcast(value)) if key.device.type == "cpu" else (key, value)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)); ReLU inside."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = layer_norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = layer_norm(config)
        self.expand = nn.Linear(config.d_model, config.d_ff)
        self.contract = nn.Linear(config.d_ff, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KeyValueCache | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """(B, T, d) -> (B, T, d); mask, cache and memory as in `Attention.forward`."""
        memory = None if memory is None else self.attention_norm(memory)
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, cache, memory))
        hidden = self.dropout(functional.relu(self.expand(self.feed_forward_norm(x))))
        return x + self.dropout(self.contract(hidden))


class Stack(nn.Module):
    """Normalises its input, then applies blocks; the output is normalised only where `config.final_norm` says so."""

    def __init__(self, config: ModelConfig, blocks: int) -> None:
        super().__init__()
        self.norm = layer_norm(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(blocks))
        self.final_norm = layer_norm(config) if config.final_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        caches: list[KeyValueCache] | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(B, T, d) -> (B, T, d); mask as in `Attention.forward`, caches: one a block; memory: (B, M, d), the same to
        every block."""
        x = self.norm(x)
        memory = None if memory is None else self.norm(memory)
        for index, block in enumerate(self.blocks):
            x = block(x, mask, None if caches is None else caches[index], memory)
        return self.final_norm(x)

    def remember(self, memory: Tensor, caches: list[KeyValueCache]) -> None:
        """Fills the caches with the keys and values of `memory` (B, M, d), as `forward` makes them."""
        memory = self.norm(memory)
        for block, cache in zip(self.blocks, caches, strict=True):
            assert isinstance(block, Block)
            block.attention.remember(block.attention_norm(memory), cache)


def sinusoid(positions: int, size: int) -> Tensor:
    """(positions, size) float32: the reference's position code, which is not the textbook one.

    Column i (even): sin(p / 10000^(2i/size)); column i + 1: cos(p / 10000^(2(i+1)/size)): i itself steps by two, so
    the wavelengths grow twice as fast as in "Attention is all you need".
    """
    position = torch.arange(positions, dtype=torch.float64)[:, None]
    column = torch.arange(size, dtype=torch.float64)[None, :]
    angle = position / 10000.0 ** (2 * column / size)
    return torch.where(torch.arange(size) % 2 == 0, angle.sin(), angle.cos()).float()
