"""Which unchanged pairs take part in FDA, and that the text alone does not give the caption away in what is drawn."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.batches.batches import Batches
from cluster.batches.fda_samples import draw_list
from cluster.config.fields import NegativeKind, NegativesConfig
from idc.captioning import tokenizer as tokenizers
from shards.format import manifest
from shards.negatives.kinds import KINDS
from shards.order.permutation import generator
from shards.wording.claims import says_change

PAD = 0
SIZE = 1200


def batches(tiny: Any, stage: Any, shards: Path | None = None) -> Batches:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    return Batches(shards or tiny.shards, tiny.features, tokenizer, tiny.config.model, 12, stage, 5, 0, 1)


def alignment(tiny: Any, count: int, kinds: tuple[NegativeKind, ...] = KINDS) -> Any:
    return dataclasses.replace(
        tiny.config.pretraining["pretrain"], steps=1, ratios={"fda": 1.0}, global_batch_size=SIZE,
        micro_batch_size=SIZE, contrastive_group=0, batch_sizes={}, negatives=NegativesConfig(kinds, count),
    )  # fmt: skip


def solved(tiny: Any, made: Batches) -> tuple[float, float]:
    """(percent of the samples of a step that "take no change" solves, share of samples whose caption says so)."""
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    (part,) = made.step(0).micro_batches
    right, unchanged = 0.0, 0
    for row in part["caption_with_negatives"].tolist():
        texts = [tokenizer.decode(ids[1:]) for ids in row if any(ids)]
        denials = [says_change(text) is False for text in texts]
        right += denials[0] / sum(denials) if any(denials) else 1 / len(texts)
        unchanged += denials[0]
    return 100 * right / SIZE, unchanged / SIZE


@pytest.mark.parametrize("count", [1, 6])
def test_taking_the_sentence_that_says_no_change_is_right_by_chance(tiny: Any, count: int) -> None:
    right, unchanged = solved(tiny, batches(tiny, alignment(tiny, count)))
    assert right == pytest.approx(100 / (1 + count), abs=5)  # three standard deviations
    assert unchanged > 0.05, "unchanged pairs take part"


@pytest.mark.parametrize("count", [1, 6])
def test_of_matched_negatives_the_text_tells_nothing_and_every_sample_drawn_has_some(tiny: Any, count: int) -> None:
    made = batches(tiny, alignment(tiny, count, ("matched",)))
    right, unchanged = solved(tiny, made)
    assert right == pytest.approx(100 / (1 + count), abs=6) and unchanged > 0.03
    (part,) = made.step(0).micro_batches
    lists = part["caption_with_negatives"]
    assert (lists[:, 1] != PAD).any(dim=-1).all(), "a sample without a group teaches nothing: another takes its place"
    true, said = Counter(map(tuple, lists[:, 0].tolist())), Counter(map(tuple, lists.flatten(0, 1).tolist()))
    often = [true[ids] / times for ids, times in said.items() if any(ids) and times > 60]
    assert often and max(abs(share - 1 / (1 + count)) for share in often) < 0.25


def test_a_folder_packed_before_there_were_matched_lists_serves_with_its_own(tiny: Any) -> None:
    lists = {"retrieve": ["a"], "replace": ["b"], "confuse": ["c"]}
    rng = generator(0, 0, 0, "test")
    record = {"captions": ["x", "y"], "negatives": lists}
    drawn = [draw_list(record, NegativesConfig(("matched",), 3), rng) for _ in range(20)]
    assert {texts[0] for texts in drawn} == {"x", "y"} and all(sorted(texts[1:]) == ["a", "b", "c"] for texts in drawn)
    record["negatives"] = lists | {"matched": ["d"]}
    assert draw_list(record, NegativesConfig(("matched",), 3), rng) == ["x", "d", "", ""]


def older(tiny: Any, folder: Path) -> Path:
    """The folder as an earlier version packed it: its manifest does not tell of negatives."""
    shutil.copytree(tiny.shards, folder)
    contents = manifest.read(folder)
    for field in ("negatives", "contradictions", "denials", "shared_images"):
        del contents[field]
    manifest.write(folder, contents)
    return folder


def test_of_a_folder_packed_earlier_all_pairs_take_part(tiny: Any, tmp_path: Path) -> None:
    made = batches(tiny, alignment(tiny, 1), older(tiny, tmp_path / "older"))
    right, unchanged = solved(tiny, made)
    assert right > 60 and unchanged == pytest.approx(0.5, abs=0.05)


def test_in_fine_tuning_those_that_stay_out_are_captioned_without_negatives(tiny: Any) -> None:
    stage = dataclasses.replace(
        tiny.config.finetune, steps=1, ratios={"finetune": 1.0}, weights={"fda": 0.5}, global_batch_size=200,
        micro_batch_size=200, negatives=NegativesConfig(count=2),
    )  # fmt: skip
    (part,) = batches(tiny, stage).step(0).micro_batches
    absent = (part["caption_with_negatives"][:, 1:] == PAD).all(dim=-1)
    without = absent.all(dim=1)
    assert torch.equal(without, absent.any(dim=1))
    assert not without[part["changed"] == 1].any(), "changed pairs keep theirs"
    share = without[part["changed"] == 0].float().mean().item()
    assert 0.6 < share < 1.0
    assert (part["caption"] != PAD).any(dim=-1).all() and part["changed"].float().mean() == pytest.approx(0.5, abs=0.12)
