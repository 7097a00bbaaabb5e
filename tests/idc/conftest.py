"""Small models and random batches for the tests of the science."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idc.model.build import build
from idc.model.config import BOS, EOS, MASK, NOT_SCORED, ModelConfig
from idc.model.trunk import Trunk

SIZES = {
    "vocab_size": 23,
    "feature_dim": 10,
    "grid": (2, 3),
    "max_length": 9,
    "d_model": 16,
    "heads": 2,
    "d_ff": 24,
    "cross_modal_blocks": 2,
    "classes": 5,
}


@pytest.fixture(autouse=True)
def always_one_thread(one_thread):
    """For all tests of this folder."""


@pytest.fixture
def make_model() -> Callable[..., Trunk]:
    """make_model(seed=0, **fields) -> a small model, dropout off, every parameter away from its start.

    Large weights, so that different images and words make a difference that shows.
    """

    def make(seed: int = 0, **fields: object) -> Trunk:
        generator = torch.Generator().manual_seed(seed)
        model = build(ModelConfig(**(SIZES | fields))).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                spread = 0.2 if weight.dim() == 1 or "types" in name else 2 * weight.shape[-1] ** -0.5
                offset = 1.0 if weight.dim() == 1 and float(weight.detach().mean()) == 1.0 else 0.0
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread + offset)
        return model

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """make_batch(samples=4, seed=0, photo=False) -> every key of every task, captions of different lengths."""

    def make(samples: int = 4, seed: int = 0, photo: bool = False) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        cells, length, negatives, images = 6, SIZES["max_length"], 3, 1 if photo else 2

        def captions(count: int) -> Tensor:
            ids = torch.zeros(count, length, dtype=torch.long)
            for row in ids:
                end = int(torch.randint(3, length, (), generator=generator))
                row[0], row[end] = BOS, EOS
                row[1:end] = torch.randint(6, SIZES["vocab_size"], (end - 1,), generator=generator)
            return ids

        def features() -> Tensor:
            return torch.randn(samples, cells, SIZES["feature_dim"], generator=generator)

        batch = {"photo": features()} if photo else {"before": features(), "after": features()}
        batch["caption"] = captions(samples)
        hidden = (torch.rand(samples, length, generator=generator) < 0.4) & (batch["caption"] > EOS)
        hidden[:, 1] = True
        batch["caption_masked"] = batch["caption"].masked_fill(hidden, MASK)
        batch["caption_labels"] = batch["caption"].masked_fill(~hidden, NOT_SCORED)
        batch["visual_mask"] = torch.rand(samples, images * cells, generator=generator) < 0.3
        batch["visual_mask"][:, 0] = True
        batch["caption_with_negatives"] = torch.cat(
            [batch["caption"][:, None], captions(samples * negatives).view(samples, negatives, length)], dim=1
        )
        batch["changed"] = torch.tensor([0, 1, -1, 1])[torch.arange(samples) % 4]
        batch["class_before"] = torch.randint(0, 2, (samples,), generator=generator)
        batch["class_after"] = torch.randint(0, 2, (samples,), generator=generator)
        batch["same_class"] = (batch["class_before"] == batch["class_after"]).long()
        return batch

    return make
