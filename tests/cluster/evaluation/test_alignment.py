"""FDA on validation samples: the same lists on any number of ranks, beside what the text alone gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cluster.batches.samples import Samples
from cluster.config.fields import NegativesConfig
from cluster.evaluation.alignment import Alignment, summary
from cluster.tracking.run_log import alignment_line
from idc.captioning import tokenizer as tokenizers
from idc.model.build import build

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["pair", "photo"])
def test_lists_are_shared_out_and_told_beside_chance(tiny: Any, kind: str) -> None:
    negatives = NegativesConfig(("matched",), 2)
    asked, learnt = (
        Alignment(Samples(tiny.shards, tiny.features, kind, split), negatives, 3, 60)
        for split in ("val" if kind == "pair" else "train", "train")
    )
    assert asked.lists and all(1 < len(texts) <= 3 for _, texts in asked.lists)
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    torch.manual_seed(0)
    model = build(tiny.config.model)
    alone = asked.right(model, tokenizer, 0, 1, CPU, "fp32", None)
    shared = [asked.right(model, tokenizer, rank, 2, CPU, "fp32", None) for rank in (0, 1)]
    assert len(alone) == len(asked.lists) and shared == [alone[0::2], alone[1::2]]
    # Whichever sentence of a list is put first: one of them is nearest to the images.
    drawn, nearest = asked.lists, dict.fromkeys((place for place, _ in asked.lists), 0)
    for turn in range(3):
        asked.lists = [(place, texts[turn:] + texts[:turn]) for place, texts in drawn if turn < len(texts)]
        found = asked.right(model, tokenizer, 0, 1, CPU, "fp32", None)
        for (place, _), right in zip(asked.lists, found, strict=True):
            nearest[place] += right
    asked.lists = drawn
    assert set(nearest.values()) == {1}
    told = summary([True, True, False, False], asked, learnt)
    assert told["fda"] == 50 and 33 <= told["chance"] <= 50 and told["lists"] == len(asked.lists)
    assert "FDA picks the true caption in 50.0 %" in alignment_line(told)


def test_samples_that_cannot_be_read_are_passed_over(tiny: Any) -> None:
    samples = Samples(tiny.shards, tiny.features, "pair", "val")
    asked = Alignment(samples, NegativesConfig(("matched",), 2), 3, 60)
    shape = samples._shape
    samples._shape = (shape[0] + 1, shape[1])  # as if the features were another backbone's
    model = build(tiny.config.model)
    assert asked.right(model, tokenizers.load(tiny.shards / "tokenizer.model"), 0, 1, CPU, "fp32", None) == []
