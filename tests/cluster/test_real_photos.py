"""Data expansion on real photos: birds of CUB-200-2011 teach the image difference encoder what they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from testing.multirank import run_ranks

from cluster.batches.samples import ClassIndex, Samples
from cluster.config.fields import Config
from cluster.config.options import override
from cluster.prepare import prepare_training, with_sizes
from cluster.recipes.registry import RECIPES
from cluster.tracking.run_log import read_metrics
from cluster.training import checkpoint
from cluster.training.job import Job
from idc.model.build import build
from shards.pack import pack
from shards.sources import make_source

pytestmark = pytest.mark.ranks

PAIRS = 20
PHOTOS = 150  # of the train and of the test split: the first five classes of birds
STEPS = 120
OPTIONS = {
    "name": "cub", "log.wandb": "disabled", "data.shards": "data/pairs", "data.classes": "data/cub",
    "data.source": "none", "data.pack_workers": "1", "backbone.size": "128,128", "cluster.workers": "1",
    "model.d_model": "64", "model.heads": "4", "model.d_ff": "128", "model.dropout": "0",
    "pretrain.steps": str(STEPS), "pretrain.ratios": "classify=1", "pretrain.global_batch_size": "32",
    "pretrain.micro_batch_size": "32", "pretrain.contrastive_group": "32", "pretrain.lr": "2e-3",
    "pretrain.warmup_steps": "10", "pretrain.checkpoint_every": str(STEPS), "finetune.steps": "0",
}  # fmt: skip


def train(job: Job) -> None:
    """One worker, without Ray."""
    from cluster.training.worker import run

    run(job, torch.device("cpu"))


@pytest.fixture(scope="module")
def birds(shared_data: Path) -> Path:
    folder = shared_data / "cub50"
    if not (folder / "images.txt").is_file() or not folder.with_name("cub50_pairs.json").is_file():
        pytest.skip(f"no photos of CUB-200-2011 at {folder}, or no cub50_pairs.json beside them")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, birds: Path) -> tuple[Config, Job]:
    """Pairs of birds with sentences, and the photos of five classes beside them; the stage has run."""
    root = tmp_path_factory.mktemp("cub")
    pairs = json.loads(birds.with_name("cub50_pairs.json").read_text())[:PAIRS]
    (root / "native").mkdir()
    (root / "native" / "images").symlink_to(birds / "images")
    with open(root / "native" / "pairs.jsonl", "w") as table:
        for pair in pairs:
            row = {
                "before": f"images/{pair['image1']}",
                "after": f"images/{pair['image2']}",
                "captions": pair["captions"],
            }
            table.write(json.dumps(row) + "\n")
    pack(make_source("pairs", root / "native"), root / "data" / "pairs")
    pack(make_source("cub", birds), root / "data" / "cub", limit=PHOTOS)
    config = override(dataclasses.replace(RECIPES["tiny"](), root=str(root)), OPTIONS.items())
    training = prepare_training(config, root)
    config = with_sizes(config, training)
    run = root / "runs" / "cub"
    run.mkdir(parents=True)
    data, classes = training.data, training.classes.place
    job = Job(config, run, data.shards.location, data.features.path, ("pretrain",), classes=classes)
    run_ranks(1, train, job)
    return config, job


def accuracy(config: Config, job: Job, weights: dict[str, torch.Tensor] | None) -> float:
    """Share of the test split's photos whose class the single-image block names; None: random weights."""
    torch.manual_seed(config.seed)
    model = build(config.model).eval()
    if weights is not None:
        model.load_state_dict(weights)
    samples = Samples(job.classes.shards, job.classes.features, "class", "test")
    photos = samples.arrays(range(len(samples)))["photo"]
    with torch.no_grad():
        pair = model.encode_pair(model.embed_images({"before": photos, "after": photos}))
        named = model.class_head(pair.single_cls[:, 0]).argmax(-1).numpy()
    return float((named == ClassIndex(samples, config.model.classes).ids).mean())


def test_the_losses_fall(trained: tuple[Config, Job]) -> None:
    records = [record for record in read_metrics(trained[1].run) if "task" in record]
    assert len(records) == STEPS and {record["task"] for record in records} == {"classify"}
    for loss, share in (("class", 0.2), ("match", 0.7), ("class_contrastive", 0.5)):
        values = [record["loss"][loss] for record in records]
        assert np.mean(values[-10:]) < share * np.mean(values[:10]), (loss, values)


def test_birds_that_were_not_seen_are_told_apart(trained: tuple[Config, Job]) -> None:
    config, job = trained
    newest = checkpoint.latest(job.run / "checkpoints" / "pretrain")
    untrained, after = (accuracy(config, job, weights) for weights in (None, checkpoint.load_weights(newest.weights)))
    assert untrained < 0.25 and after > 0.33, "a fifth is chance, and 150 photos are few"
