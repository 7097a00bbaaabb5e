"""Backbones in the training: cached and live, frozen and trained; each goes on after a stop as if there was none."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from testing.multirank import run_ranks

from cluster.config.fields import Config
from cluster.config.options import override
from cluster.prepare import prepare_training, with_sizes
from cluster.recipes.blocks import OPEN
from cluster.tracking.run_log import read_metrics, read_without_times
from cluster.training import checkpoint
from cluster.training.job import Evaluation, Job

pytestmark = pytest.mark.ranks
STEPS, STOP = 4, 2
SMALL = {
    "pretrain.steps": "0", "finetune.steps": str(STEPS), "finetune.checkpoint_every": str(STOP), "finetune.keep": "9",
    "finetune.validate_every": str(STEPS), "finetune.validate_limit": "2", "cluster.precision": "fp32",
    "cluster.gpus_per_worker": "0", "backbone.lr": "1e-3", "model.dropout": "0", "evaluate.beam": "1",
}  # fmt: skip
CNN, VIT = "efficientnet_lite0", "test_vit"
LOOKS = {"data.augment.light": "0.1", "data.augment.crop": "0.1", "data.augment.mirror": "true"}
CASES: dict[str, dict[str, str]] = {
    "cnn cached": {},
    "cnn live": {"backbone.mode": "live"} | LOOKS,
    "cnn trained": {"backbone.mode": "live", "backbone.train": "last:2"} | LOOKS,
    "vit cached": {"backbone.name": VIT},
    "vit live": {"backbone.name": VIT, "backbone.mode": "live"},
    "vit trained": {
        "backbone.name": VIT, "backbone.mode": "live", "backbone.train": "all", "backbone.checkpointing": "true",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def vit_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a small vision transformer's random weights."""
    import torch
    from safetensors.torch import save_file

    from idc.backbone.timm_import import import_timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(import_timm().create_model(VIT).state_dict(), path)
    return path


def job_of(tiny: Any, run: Path, weights: Path, options: dict[str, str], evaluated: bool = False) -> Job:
    options = SMALL | options | ({"backbone.weights": str(weights)} if options.get("backbone.name") == VIT else {})
    config: Config = override(tiny.config, list(options.items()))
    training = prepare_training(config, tiny.root)
    data, config = training.data, with_sizes(config, training, ("finetune",))
    run.mkdir()
    scored = Evaluation(data.shards.location, data.place.features, "test", run / "predictions.jsonl")
    return Job(
        config, run, data.shards.location, data.place.features, ("finetune",), exports=evaluated, names=training.names,
        evaluation=scored if evaluated else None, live=data.live,
    )  # fmt: skip


def work(jobs: Sequence[Job]) -> None:
    import torch

    from cluster.training.worker import run

    for job in jobs:
        run(job, torch.device("cpu"))


def losses(run: Path) -> list[float]:
    return [loss for line in read_metrics(run) if "loss" in line for loss in line["loss"].values()]


def stopped(run: Path, to: Path) -> Path:
    """A copy of a run as it was after STOP steps."""
    shutil.copytree(run, to)
    shutil.rmtree(to / "checkpoints" / "finetune" / f"step_{STEPS:08d}")
    return to


def weights_of(run: Path) -> bytes:
    newest = checkpoint.latest(run / "checkpoints" / "finetune")
    assert newest is not None and newest.commit.step == STEPS
    return newest.weights.read_bytes()


@pytest.fixture(scope="module")
def trained(tiny: Any, vit_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """All cases, trained and captioned by one rank."""
    folder = tmp_path_factory.mktemp("live")
    jobs = {
        name: job_of(tiny, folder / name.replace(" ", "-"), vit_weights, options, evaluated=True)
        for name, options in CASES.items()
    }
    run_ranks(1, work, list(jobs.values()))
    return jobs


def test_each_goes_on_as_if_it_had_not_stopped(trained: dict[str, Job], tmp_path: Path) -> None:
    again = {
        name: dataclasses.replace(job, run=stopped(job.run, tmp_path / job.run.name), exports=False, evaluation=None)
        for name, job in trained.items()
    }
    run_ranks(1, work, list(again.values()))
    for name, job in trained.items():
        assert read_without_times(again[name].run) == read_without_times(job.run), name
        assert weights_of(again[name].run) == weights_of(job.run), name
        assert len(losses(job.run)) >= STEPS, name


def test_a_live_run_without_augmentation_follows_the_cached_one(trained: dict[str, Job]) -> None:
    """Cached features are rounded to half precision, and of another precision where the processor has it."""
    cached, live = losses(trained["vit cached"].run), losses(trained["vit live"].run)
    assert live == pytest.approx(cached, rel=5e-3) and live != losses(trained["vit trained"].run)


def test_checkpoints_hold_a_trained_backbone_and_no_frozen_one(trained: dict[str, Job]) -> None:
    from safetensors import safe_open

    from idc.losses.training_model import BACKBONE

    for name, job in trained.items():
        first, last = (
            safe_open(job.run / "checkpoints" / "finetune" / f"step_{step:08d}" / "weights.safetensors", "pt")
            for step in (STOP, STEPS)
        )
        held = [key for key in last.keys() if key.startswith(BACKBONE)]
        moved = [key for key in held if not first.get_tensor(key).equal(last.get_tensor(key))]
        if not name.endswith("trained"):
            assert not held, name
            continue
        statistics = [key for key in held if "running_" in key or "num_batches" in key]
        assert moved and not set(statistics) & set(moved), name
        layers = {key.split(".")[2] for key in moved if ".blocks." in key}
        assert layers == ({"4"} if name.startswith("cnn") else set("012345")), name


@pytest.mark.parametrize("name", ["cnn live", "cnn trained", "vit trained"])
def test_the_exported_model_captions_as_the_run_did(trained: dict[str, Job], name: str) -> None:
    from idc.captioner import Captioner
    from shards.reading.reader import Folder

    job = trained[name]
    frozen = "" if name.endswith("trained") else job.config.backbone.weights  # else all is in the folder
    captioner = Captioner.load(job.run, backbone_weights=frozen)
    images = Folder.open(job.shards).stream("pair", "test")
    made = [json.loads(line) for line in (job.run / "predictions.jsonl").read_text().splitlines()]
    pairs = [(shown["before"], shown["after"]) for shown in map(images.images, range(len(made)))]
    found = captioner.captions(pairs, maps=False)
    assert len(made) == 8
    assert [one.changed_probability for one in found] == pytest.approx(
        [one["changed_probability"] for one in made], abs=2e-3
    )
    assert (job.run / "model" / "backbone.safetensors").is_file() == name.endswith("trained")


def test_a_trained_backbone_is_in_the_graphs(trained: dict[str, Job], tmp_path: Path) -> None:
    """onnxruntime says the words of the trained transformer, which the weights of its name would not."""
    from cluster.sharing import onnx_folder
    from shards.reading.reader import Folder

    job = trained["vit trained"]
    folder = shutil.copytree(job.run / "model", tmp_path / "model")
    found = onnx_folder.write(folder, "", Folder.open(job.shards), "test")
    assert found.same == found.pairs > 8 and found.log_probability < 1e-3 and found.changed < 1e-4, found


ZERO = {"zero 1": "1", "zero 2": "2", "zero 3": "3"}


def test_ranks_share_a_trained_backbone_at_every_zero_stage(
    tiny: Any, trained: dict[str, Job], vit_weights: Path, tmp_path: Path
) -> None:
    """Two ranks follow the curve of one, and go on from one another's checkpoints; frozen parts are shared too."""
    alone = trained["vit trained"]
    jobs = {
        name: job_of(
            tiny, tmp_path / name.replace(" ", "-"), vit_weights,
            CASES["vit trained"] | {"cluster.zero_stage": stage, "cluster.workers": "2"},
        )
        for name, stage in ZERO.items()
    }  # fmt: skip
    frozen = CASES["vit live"] | {"cluster.zero_stage": "3", "cluster.workers": "2"}
    jobs["frozen"] = job_of(tiny, tmp_path / "frozen", vit_weights, frozen)
    resumed = dataclasses.replace(jobs["zero 3"], run=stopped(alone.run, tmp_path / "resumed"))
    run_ranks(2, work, [*jobs.values(), resumed])
    for name in ZERO:
        assert losses(jobs[name].run) == pytest.approx(losses(alone.run), rel=1e-3), name
    assert losses(resumed.run) == pytest.approx(losses(alone.run), rel=1e-3)
    assert losses(jobs["frozen"].run) == pytest.approx(losses(trained["vit live"].run), rel=1e-3)


def test_our_architecture_trains_it(tiny: Any, vit_weights: Path, tmp_path: Path) -> None:
    """Gradients pass through standardised maps, peaks and counterparts, and are finite."""
    options = (
        CASES["cnn trained"]
        | {"finetune.clip": "0"}
        | {f"model.{name}": str(value).lower() for name, value in OPEN.items()}
    )
    options |= {"model.architecture": "idc", "model.cell_size": "16", "model.regions": "4", "model.novelties": "4"}
    job = job_of(tiny, tmp_path / "idc", vit_weights, options)
    run_ranks(1, work, [job])
    assert all(line["grad_norm"] > 0 for line in read_without_times(job.run) if "loss" in line)
    assert not any("skipped" in line for line in read_without_times(job.run))
    from safetensors.torch import load_file

    first, last = (
        load_file(job.run / "checkpoints" / "finetune" / f"step_{step:08d}" / "weights.safetensors")
        for step in (STOP, STEPS)
    )
    assert any(not first[key].equal(last[key]) for key in first if key.startswith("backbone.") and ".blocks." in key)
    same = [key for key in first if key.startswith("finder.map.")]
    assert same and all(first[key].equal(last[key]) for key in same) and last["finder.map.deviation"].std() > 0
