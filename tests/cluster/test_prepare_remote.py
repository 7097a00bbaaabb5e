"""Training from a URL: the same batches as from the local folder, features beside the run's own data."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cluster.batches.batches import Batches
from cluster.config.options import override
from cluster.prepare import prepare_training, with_sizes
from cluster.training import weights
from shards.errors import DataError
from shards.reading.object_store import Bucket
from shards.reading.reader import Folder


def test_a_run_reads_its_shards_from_a_url(tiny: Any, s3_url: str, tmp_path) -> None:
    for path in tiny.shards.iterdir():
        Bucket(s3_url).upload(path, path.name)
    config = override(dataclasses.replace(tiny.config, root=str(tmp_path)), [("data.shards", s3_url)])
    training = prepare_training(config, tmp_path)
    data = training.data
    assert data.shards.location == s3_url and data.features.path.parent == tmp_path / "data"
    assert with_sizes(config, training).model == tiny.config.model
    stage = dataclasses.replace(tiny.config.stage("pretrain"), steps=6)
    remote, local = (
        Batches(place, features, weights.open_tokenizer(place), tiny.config.model, 12, stage, 5, 0, 1)
        for place, features in ((data.shards.location, data.features.path), (tiny.shards, tiny.features))
    )
    for step in range(6):
        ours, theirs = remote.step(step), local.step(step)
        assert ours.task == theirs.task and len(ours.micro_batches) == len(theirs.micro_batches)
        for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_url_without_a_shard_folder_is_not_packed_into(tiny: Any, s3_url: str, tmp_path) -> None:
    config = override(dataclasses.replace(tiny.config, root=str(tmp_path)), [("data.shards", s3_url)])
    with pytest.raises(DataError, match=f"{s3_url}: no such bucket, or no manifest.json"):
        prepare_training(config, tmp_path)
    assert Bucket(s3_url).names() == set()


def test_a_store_that_is_gone_makes_no_sample_bad(tiny: Any, s3_url: str, tmp_path, monkeypatch) -> None:
    for path in tiny.shards.iterdir():
        Bucket(s3_url).upload(path, path.name)
    stage = dataclasses.replace(tiny.config.stage("pretrain"), steps=6)
    tokenizer = weights.open_tokenizer(s3_url)
    batches = Batches(s3_url, tiny.features, tokenizer, tiny.config.model, 12, stage, 5, 0, 1)
    for tar in Folder.open(s3_url).path.glob("*.tar"):
        tar.unlink()
    monkeypatch.setattr("shards.reading.object_store.REQUEST_LIMIT", 1e-6)
    monkeypatch.setattr("shards.reading.object_store.PATIENCE", 0.5)
    with pytest.raises(DataError, match=f"{s3_url}/.*no answer within .*The same command goes on .asked again for "):
        batches.step(0)
