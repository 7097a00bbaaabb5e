"""Sentences from a trained model: greedy and beam search over an exact key-value cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from idc.model.layers import upcast
from idc.model.trunk import PairEncoding, Trunk

ASK_EVERY = 8  # tokens; see `_asked_every`


@dataclass(frozen=True)
class Captions:
    """B pairs captioned, K = beam sentences each, best first; L = max_length.

    A sentence is `<bos> words <eos>`, then padding; without <eos> it was cut at max_length.
    """

    alternatives: Tensor  # (B, K, L) int64
    alternative_log_probability: Tensor  # (B, K) float32: the sum over words, <eos> included; -inf = no such sentence
    changed: Tensor  # (B,) float32: probability that the images differ, by the changed/unchanged head
    pair: PairEncoding  # of the images, which maps of the sentences are made from

    @property
    def tokens(self) -> Tensor:
        """(B, L): the best sentence of each pair."""
        return self.alternatives[:, 0]

    @property
    def log_probability(self) -> Tensor:
        """(B,): of the best sentence."""
        return self.alternative_log_probability[:, 0]


@torch.no_grad()
def generate(
    model: Trunk,
    images: Mapping[str, Tensor],
    beam: int = 1,
    length_penalty: float = 0.0,
    max_length: int | None = None,
    stop_at_eos: bool = True,
) -> Captions:
    """Captions for `before` and `after` (B, N, F), or for `photo`; any B, dropout off whatever the model's mode.

    beam: sentences kept at each step; 1 = greedy. Sentences that have ended compete on with those that have not, by
    log-probability. length_penalty: at the end, sentences are ranked by log-probability / length ** length_penalty,
    <eos> counted: 0 prefers short sentences, 1 ranks by the mean. max_length: tokens, <bos> included; the model's own
    by default. Ends when all sentences have. stop_at_eos False goes on to max_length (for the reference check).
    Raises ValueError for a beam below 1 or a max_length that the model has no positions for.
    """
    config = model.config
    max_length = config.max_length if max_length is None else max_length
    if beam < 1:
        raise ValueError(f"beam is {beam}; it must be at least 1")
    if not 2 <= max_length <= config.max_length:
        raise ValueError(f"max_length is {max_length}; this model makes sentences of 2 to {config.max_length} tokens")
    training = model.training
    model.eval()
    try:
        return _search(model, images, beam, length_penalty, max_length, stop_at_eos)
    finally:
        model.train(training)


def _search(
    model: Trunk, images: Mapping[str, Tensor], beam: int, length_penalty: float, max_length: int, stop_at_eos: bool
) -> Captions:
    config = model.config
    state, changed_logits = model.start_captions(images, max_length, beam)
    changed = upcast(changed_logits).softmax(dim=-1)[:, 1]
    batch, device = len(changed), changed.device
    asked_every = _asked_every(device)

    tokens = torch.full((batch, beam, max_length), config.pad, device=device)
    tokens[:, :, 0] = config.bos
    # All beams start equal, so only the first may branch at the first step.
    score = torch.full((batch, beam), float("-inf"), device=device, dtype=changed.dtype)
    score[:, 0] = 0.0
    length = torch.zeros(batch, beam, dtype=torch.long, device=device)
    ended = torch.zeros(batch, beam, dtype=torch.bool, device=device)
    # A sentence that has ended goes on in one way, with padding, at no cost.
    only_padding = torch.full((config.vocab_size,), float("-inf"), device=device, dtype=changed.dtype)
    only_padding[config.pad] = 0.0

    for position in range(1, max_length):
        logits = model.next_word(state, tokens[:, :, position - 1])
        step = torch.where(ended[..., None], only_padding, upcast(logits).log_softmax(dim=-1))
        score, choice = (score[..., None] + step).flatten(1).topk(beam, dim=-1)
        origin, word = choice // config.vocab_size, choice % config.vocab_size
        if beam > 1:
            state.reorder(origin)
            tokens = tokens.gather(1, origin[..., None].expand_as(tokens))
            length, ended = length.gather(1, origin), ended.gather(1, origin)
        tokens[:, :, position] = word
        length += ~ended
        if stop_at_eos:
            ended |= word == config.eos
            if position % asked_every == 0 and bool((ended | score.isneginf()).all()):
                break

    order = (score / length.clamp_min(1) ** length_penalty).argsort(dim=1, descending=True, stable=True)
    return Captions(
        tokens.gather(1, order[..., None].expand_as(tokens)),
        score.gather(1, order).float(),
        changed.float(),
        state.pair,
    )


def _asked_every(device: torch.device) -> int:
    """Tokens from one question whether all sentences have ended to the next.

    To answer, the host waits until the device has caught up, which costs a GPU more than a few words too many; they are
    padding. A CPU is never behind.
    """
    return 1 if device.type == "cpu" else ASK_EVERY
