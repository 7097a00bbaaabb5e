"""How images are shown: a function of the position alone, and nothing that makes a sentence false."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cluster.batches.batches import Batches
from cluster.config.fields import AugmentConfig
from cluster.images.loaders import Loaders
from cluster.images.look import Look
from cluster.images.looks import draw_looks
from idc.backbone.canvas import Canvas
from idc.captioning import tokenizer as tokenizers

CANVAS = Canvas((48, 64), (48, 64))
AUGMENT = AugmentConfig(light=0.2, crop=0.1, mirror=True)


def batches(tiny: Any, stage: Any, loaders: Loaders, rank: int = 0, world: int = 1, augment: Any = AUGMENT) -> Batches:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    return Batches(
        tiny.shards, None, tokenizer, tiny.config.model, 12, stage, 5, rank, world, loaders=loaders, augment=augment
    )


def shown(made: Batches, step: int) -> dict[str, list[bytes]]:
    """The pixels of each sample of a step, by role."""
    found: dict[str, list[bytes]] = {}
    for part in made.step(step).micro_batches:
        for role in ("before", "after", "photo"):
            found.setdefault(role, []).extend(row.numpy().tobytes() for row in part.get(role, ()))
    return found


@pytest.mark.parametrize("stage_name", ["pretrain", "finetune"])
def test_any_number_of_ranks_and_processes_see_the_same_pixels(tiny: Any, stage_name: str) -> None:
    stage = dataclasses.replace(tiny.config.stage(stage_name), steps=12)
    with Loaders(CANVAS, "bicubic", 1) as one, Loaders(CANVAS, "bicubic", 3) as three:
        alone, plain = batches(tiny, stage, one), batches(tiny, stage, one, augment=AugmentConfig())
        pair = [batches(tiny, stage, three, rank, 2) for rank in range(2)]
        for step in (11, 2, 5):
            whole, parts = shown(alone, step), [shown(each, step) for each in pair]
            for role, rows in whole.items():
                assert sorted(rows) == sorted(parts[0][role] + parts[1][role])
            assert whole != shown(plain, step)
            assert whole == shown(batches(tiny, stage, three), step), "as after a restart"


def drawn(captions: list[str], seed: int, negatives: dict[str, list[str]] | None = None) -> dict[str, Look]:
    record = {"captions": captions, "negatives": negatives or {}}
    return draw_looks(AUGMENT, record, ("before", "after"), np.random.default_rng(seed))


def test_each_image_has_a_look_of_its_own_and_pairs_are_mirrored_together() -> None:
    looks = [drawn(["a dog has been added"], seed) for seed in range(200)]
    assert all(pair["before"].mirrored == pair["after"].mirrored for pair in looks)
    assert 70 < sum(pair["before"].mirrored for pair in looks) < 130
    assert all(pair["before"][:7] != pair["after"][:7] for pair in looks)
    for pair in looks:
        for look in pair.values():
            assert 0 <= min(look[:4]) and max(look[0] + look[2], look[1] + look[3]) <= AUGMENT.crop
            assert all(0.8 <= factor <= 1.2 for factor in look[4:7])
    assert max(look.brightness for pair in looks for look in pair.values()) > 1.15


def test_what_a_sentence_speaks_of_is_left_alone() -> None:
    for seed in range(20):
        plain = drawn(["a dog has been added"], seed)
        sides = drawn(["there is no dog", "the dog on the LEFT is gone"], seed)
        assert not sides["before"].mirrored and sides["before"][:7] == plain["before"][:7]
        assert not drawn(["a dog"], seed, {"confuse": ["the right dog is gone"]})["after"].mirrored
        light = drawn(["the picture is brighter"], seed)["after"]
        assert light[4:7] == (1.0, 1.0, 1.0) and light[:4] == plain["after"][:4]
        framed = drawn(["the picture has been cropped"], seed)["before"]
        assert framed[:4] == (0.0, 0.0, 0.0, 0.0) and framed[4:7] == plain["before"][4:7]


def test_nothing_asked_for_is_nothing_done() -> None:
    looks = draw_looks(AugmentConfig(), {}, ("photo",), np.random.default_rng(0))
    assert looks == {"photo": Look()}
