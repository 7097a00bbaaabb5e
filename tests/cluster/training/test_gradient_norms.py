"""A step whose gradient is far above the usual, or not finite, is left out on all ranks, and its samples are named."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from testing.models.engines import make_batch, make_engine
from testing.multirank import run_ranks

from cluster.batches.batches import Batches
from cluster.batches.schedule import stage_seed
from cluster.config.options import override
from cluster.training import checkpoint
from cluster.training.gradient_norms import FEWEST, WINDOW, GradientNorms
from cluster.training.job import Job
from idc.captioning import tokenizer as tokenizers
from shards.format import manifest
from shards.format.arrays import encode_array
from shards.format.tars import write_shard
from shards.reading.reader import Folder

CPU = torch.device("cpu")


def judged(norms: GradientNorms, task: str, values: list[float]) -> list[bool]:
    return [bool(norms.judge(task, torch.tensor(value))[0]) for value in values]


def test_what_is_far_above_the_median_of_its_task_is_left_out_and_forgotten() -> None:
    norms, usual = GradientNorms(10.0, CPU), [1.0 + 0.01 * number for number in range(FEWEST)]
    assert judged(norms, "mlm", [1e6, *usual[1:]]) == [True] * FEWEST, "too few to tell"
    assert judged(norms, "mlm", [12.0, math.nan, math.inf, 9.0, 12.0]) == [False, False, False, True, False]
    assert judged(norms, "fda", [12.0]) == [True], "another task has norms of its own"
    applied, median = norms.judge("mlm", torch.tensor(1.0))
    assert applied and 1.0 < float(median) < 1.2, "one of a million does not move the median"
    assert judged(norms, "mlm", [9.0] * WINDOW) == [True] * WINDOW and judged(norms, "mlm", [80.0, 91.0]) == [
        True,
        False,
    ]
    assert judged(GradientNorms(0.0, CPU), "mlm", [1.0] * WINDOW + [1e9, math.nan]) == [True] * WINDOW + [True, False]


def test_a_state_decides_as_the_one_it_was_taken_of() -> None:
    norms, other = GradientNorms(10.0, CPU), GradientNorms(10.0, CPU)
    judged(norms, "mlm", [float(number) for number in range(1, 90)])
    other.load_state(json.loads(json.dumps(norms.state())))
    for value in (3e3, 12.0, 700.0, 650.0, 5e2):
        one, two = norms.judge("mlm", torch.tensor(value)), other.judge("mlm", torch.tensor(value))
        assert one == two
    assert norms.state() == other.state() and len(norms.state()["mlm"]) == WINDOW


def spiking(zero_stage: int) -> tuple[list[bool], list[bool]]:
    """Whether each step was applied, and moved the weights: FEWEST usual ones, one of a loss times 1e5, a usual one."""
    from cluster.batches.batches import StepBatch
    from cluster.distributed.ranks import Ranks
    from cluster.training.step import read, train_step
    from idc.losses.objectives import prepare

    engine, stage = make_engine(zero_stage)
    ranks, generator = Ranks(60), torch.Generator().manual_seed(1)
    applied, moved, weights = [], [], engine.weights()
    for step in range(FEWEST + 2):
        batch = prepare("mlm", make_batch("mlm", generator))
        spikes = step == FEWEST
        taken = dataclasses.replace(stage, weights={"mlm": 1e5 if spikes and not ranks.first else 1.0})
        (found,) = read(engine, [train_step(engine, StepBatch("mlm", [batch], 8), taken, 1e-3)])
        after = engine.weights()
        applied.append(found.applied)
        moved.append(any(not torch.equal(after[name], weights[name]) for name in after))
        weights = after
    engine.close()
    return applied, moved


def spiking_everywhere() -> list:
    return [spiking(zero_stage) for zero_stage in (0, 1, 2, 3)]


@pytest.mark.ranks
def test_a_spike_on_one_rank_is_skipped_by_all_at_every_zero_stage() -> None:
    expected = [True] * FEWEST + [False, True]
    for rank in run_ranks(2, spiking_everywhere):
        for applied, moved in rank:
            assert applied == moved == expected


def train(job: Job) -> None:
    from cluster.training.worker import run

    run(job, CPU)


@pytest.mark.ranks
def test_the_samples_of_a_step_that_was_left_out_are_written_down(tiny: Any, tmp_path: Path) -> None:
    """Features of one pair are not numbers: each step that meets it is left out, on two ranks."""
    features = Path(shutil.copytree(tiny.features, tmp_path / "features"))
    contents = manifest.read(features)
    entry = next(entry for entry in contents["shards"] if entry["name"].startswith("pairs-train"))
    stream = Folder.open(features).stream("pair", "train")
    samples = [(key, stream.read(i)) for i, key in enumerate(stream.keys[: entry["samples"]])]
    key, shape = samples[3][0], stream.arrays(3)["before"].shape
    samples[3][1]["before.npy"] = encode_array(np.full(shape, np.nan, np.float16))
    entry |= write_shard(features, entry["name"], samples)
    manifest.write(features, contents)
    config = tiny.with_options(
        pretrain__steps="16", pretrain__ratios="mlm=1", pretrain__checkpoint_every="8", pretrain__skip_limit="9",
        cluster__workers="2", cluster__zero_stage="1", cluster__gpus_per_worker="0", cluster__precision="fp32",
    )  # fmt: skip
    run = tmp_path / "run"
    run.mkdir()
    job = Job(config, run, tiny.shards, features, ("pretrain",))
    run_ranks(2, train, job)
    lines = [json.loads(text) for text in (run / "skipped.jsonl").read_text().splitlines()]
    logged = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines and [line["step"] for line in lines] == [line["step"] for line in logged if line.get("skipped")]
    stage, tokenizer = config.stage("pretrain"), tokenizers.load(tiny.shards / "tokenizer.model")
    seed = stage_seed(config.seed, "pretrain")
    batches = Batches(tiny.shards, features, tokenizer, config.model, 12, stage, seed, 0, 1)
    bad = f"{tiny.shards.name}/{key}"
    met = [step + 1 for step in range(stage.steps) if bad in batches.step(step).names]
    assert [line["step"] for line in lines] == met
    for line in lines:
        assert line["norm"] is None and line["task"] == "mlm" and line["stage"] == "pretrain"
        assert line["ids"] == sorted(set(batches.step(line["step"] - 1).names)) and bad in line["ids"]

    # The norms of applied steps are part of a checkpoint, and a run that goes on from it has them.
    norms = checkpoint.latest(run / "checkpoints" / "pretrain").commit.norms["mlm"]
    assert norms == [line["grad_norm"] for line in logged if not line.get("skipped")]
    run_ranks(1, train, dataclasses.replace(job, config=override(config, [("pretrain.steps", "18")])))
    later = checkpoint.latest(run / "checkpoints" / "pretrain").commit
    assert later.step == 18 and later.norms["mlm"][: len(norms)] == norms and len(later.norms["mlm"]) > len(norms)
