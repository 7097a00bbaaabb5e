"""Pairs of several folders in one run: exact shares, the same for any ranks, and photos from the first folder alone."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.batches.batches import Batches, StepBatch
from cluster.batches.samples import Mixed
from cluster.config.fields import StageConfig
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.prepare import prepare, prepare_mixed
from idc.captioning import tokenizer as tokenizers
from shards.format import manifest
from shards.order.permutation import locate
from shards.reading.reader import Folder

SEED = 5


@pytest.fixture(scope="module")
def other(tiny: Any) -> Path:
    """A smaller folder of other scenes beside the recipe's own, with features."""
    config = tiny.with_options(data__shards="data/other", data__blocks__scenes="6,0,2", data__blocks__seed="1")
    return prepare(config, tiny.root).shards.path


@pytest.fixture
def mixed(tiny: Any, other: Path) -> tuple[Mixed, ...]:
    return prepare_mixed(tiny.with_options(data__mix="data/other=0.5"), tiny.root)


def make(tiny: Any, stage: StageConfig, mixed: tuple[Mixed, ...], rank: int = 0, world: int = 1) -> Batches:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    return Batches(tiny.shards, tiny.features, tokenizer, tiny.config.model, 12, stage, SEED, rank, world, mixed)


def before(batch: StepBatch) -> list[bytes]:
    """The features of each sample's first image."""
    return [row.numpy().tobytes() for part in batch.micro_batches for row in part["before"]]


def stored(features: Path) -> list[bytes]:
    stream = Folder.open(features).stream("pair", "train")
    return [stream.arrays(i)["before"].tobytes() for i in range(len(stream))]


def only(tiny: Any, task: str, **changes: Any) -> StageConfig:
    stage = tiny.config.finetune if task == "finetune" else tiny.config.stage("pretrain")
    return dataclasses.replace(stage, steps=12, ratios={task: 1.0}, **changes)


def test_every_three_samples_are_two_of_the_first_folder_in_its_own_order(tiny: Any, mixed: tuple[Mixed, ...]) -> None:
    batches = make(tiny, only(tiny, "finetune"), mixed)
    rows = [row for step in range(12) for row in before(batches.step(step))]
    own, others = stored(tiny.features), stored(mixed[0].features)
    assert not set(own) & set(others)
    sources = [0 if row in set(own) else 1 for row in rows]
    assert {tuple(np.bincount(sources[i : i + 3]).tolist()) for i in range(0, len(rows), 3)} == {(2, 1)}
    assert set(rows) - set(own) <= set(others)
    order = locate(np.arange(sources.count(0)), len(own), SEED)[1]
    assert [row for row in rows if row in set(own)] == [own[i] for i in order]
    assert batches.sizes == {"pair samples of train in tiny": len(own), "pair samples of train in other": len(others)}


@pytest.mark.parametrize("task", ["finetune", "mvcl"])
def test_any_number_of_ranks_and_micro_batches_see_the_same_mixture(
    tiny: Any, mixed: tuple[Mixed, ...], task: str
) -> None:
    alone = make(tiny, only(tiny, task), mixed)
    ranks = [make(tiny, only(tiny, task, micro_batch_size=2), mixed, rank, 4) for rank in range(4)]
    group = tiny.config.finetune.contrastive_group if task == "mvcl" else 1
    for step in (7, 2):
        whole = before(alone.step(step))
        parts = [before(batches.step(step)) for batches in ranks]
        together = [parts[i % 4][i // 4 * group + k] for i in range(len(whole) // group) for k in range(group)]
        assert together == whole


def test_photos_come_from_the_first_folder_alone(tiny: Any, mixed: tuple[Mixed, ...]) -> None:
    for task in ("photo_mlm", "classify"):
        plain, with_pairs = (make(tiny, only(tiny, task), folders).step(3) for folders in ((), mixed))
        for one, same in zip(plain.micro_batches, with_pairs.micro_batches, strict=True):
            assert one.keys() == same.keys() and all(one[name].equal(same[name]) for name in one)


def test_folders_that_have_no_pairs_are_refused(tiny: Any) -> None:
    with pytest.raises(ConfigError, match="--data.mix .*data/nothing: no such folder; make it with"):
        prepare_mixed(tiny.with_options(data__mix="data/nothing=1"), tiny.root)
    empty = Path(shutil.copytree(tiny.shards, tiny.root / "data" / "photos"))
    contents = manifest.read(empty)
    contents["shards"] = [shard for shard in contents["shards"] if shard["kind"] != "pair"]
    contents["splits"] = manifest.count_splits(contents["shards"])
    manifest.write(empty, contents)
    with pytest.raises(ConfigError, match="--data.mix data/photos: .* has no pairs in train; leave it out"):
        prepare_mixed(tiny.with_options(data__mix="data/photos=1"), tiny.root)


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ("data/other=0", "--data.mix: the weight '0.0' is not a number above 0"),
        ("data/other=0.000001", "--data.mix: the weights .*round them"),
        ("elsewhere/tiny=1", "--data.mix elsewhere/tiny: another folder is called tiny too"),
        ("a/x=1,b/x/=1", "--data.mix a/x: another folder is called x too"),
    ],
)
def test_impossible_mixtures_are_refused(tiny: Any, mix: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(tiny.with_options(data__mix=mix))
