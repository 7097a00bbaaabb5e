"""Captions of samples as ids: one drawn of each, with hidden words, or with its negatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cluster.batches.fda_samples import draw_list
from cluster.config.fields import NegativesConfig
from idc.captioning.tokenizer import Tokenizer
from idc.losses.masking import mask_words
from idc.model.config import ModelConfig


class Texts:
    """Makes ids of the captions in samples' json."""

    def __init__(self, tokenizer: Tokenizer, model: ModelConfig, negatives: NegativesConfig, multiple: int) -> None:
        """multiple: lengths of captions are rounded up to it."""
        self._tokenizer, self._model, self._negatives, self._multiple = tokenizer, model, negatives, multiple

    def captions(self, records: list[dict], draws: list[np.random.Generator]) -> Tensor:
        """One caption of each record, drawn: ids (B, L)."""
        pairs = zip(records, draws, strict=True)
        return self.encode([record["captions"][rng.integers(len(record["captions"]))] for record, rng in pairs])

    def encode(self, texts: list[str]) -> Tensor:
        """Ids (n, L); an empty text is a row of padding. What all rows pad is cut, unless the model sees padding."""
        ids = torch.as_tensor(self._tokenizer.batch(texts, self._model.max_length), dtype=torch.int64)
        ids[[number for number, text in enumerate(texts) if not text]] = self._model.pad
        if self._model.mask_padding:
            longest = int((ids != self._model.pad).sum(dim=1).max())
            ids = ids[:, : -(-longest // self._multiple) * self._multiple]
        return ids

    def masked(self, captions: Tensor, draws: list[np.random.Generator]) -> dict[str, Tensor]:
        special = self._model.special_ids
        rows = [
            mask_words(ids, rng, self._model.vocab_size, special=special)
            for ids, rng in zip(captions.numpy(), draws, strict=True)
        ]
        masked, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        return {"caption_masked": masked, "caption_labels": labels}

    def with_negatives(self, records: list[dict], draws: list[np.random.Generator]) -> Tensor:
        """A caption and K negatives of each record: ids (B, 1 + K, L); rows of padding where there are fewer."""
        texts = []
        for record, rng in zip(records, draws, strict=True):
            texts += draw_list(record, self._negatives, rng)
        return self.encode(texts).unflatten(0, (len(records), 1 + self._negatives.count))
