"""A validation that is cut short by an ask to stop is made up for when the run goes on, and nothing else differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from testing.mirror_files import shown_by_tensorboard
from testing.multirank import run_ranks

from cluster.distributed import beat
from cluster.errors import Stopped
from cluster.tracking.run_log import read_without_times
from cluster.training import checkpoint
from cluster.training.job import Job


def train(job: Job, asked: bool) -> str:
    """What a run says that is asked to stop, or not, once a first pair has been captioned: on rank 1 alone."""
    from cluster.training.worker import run

    went_on = beat.went_on

    def ask() -> None:
        went_on()
        if asked and torch.distributed.get_rank() == 1:
            beat.ask_to_stop("as asked")

    beat.went_on = ask
    try:
        run(job, torch.device("cpu"))
    except Stopped as stopped:
        return str(stopped)
    return "came to its end"


def left(run: Path) -> tuple[list[dict], dict, bytes, int]:
    """Lines of the log without times, scores by step, last weights, and the best step."""
    folder = run / "checkpoints" / "finetune"
    lines = read_without_times(run)
    scores = {found.commit.step: found.commit.validation for found in checkpoint.find(folder)}
    return lines, scores, checkpoint.latest(folder).weights.read_bytes(), checkpoint.best(folder, "CIDEr").commit.step


@pytest.mark.ranks
def test_a_validation_that_was_cut_short_is_made_up_for(tiny: Any, tmp_path: Path) -> None:
    config = tiny.with_options(
        finetune__steps="6", finetune__validate_every="3", finetune__checkpoint_every="3", pretrain__steps="0",
        evaluate__batch_size="1", log__tensorboard="true", cluster__workers="2",
        cluster__gpus_per_worker="0", cluster__precision="fp32",
    )  # fmt: skip
    calm, asked = (Job(config, tmp_path / name, tiny.shards, tiny.features, ("finetune",)) for name in ("a", "b"))
    for job in (calm, asked):
        job.run.mkdir()
    assert set(run_ranks(2, train, calm, False)) == {"came to its end"}
    assert set(run_ranks(2, train, asked, True)) == {
        "stopped at finetune step 3 as asked, checkpoint committed; the same command goes on"
    }
    there = checkpoint.latest(asked.run / "checkpoints" / "finetune")
    assert there.commit.step == 3 and there.commit.validation is None
    assert set(run_ranks(2, train, asked, False)) == {"came to its end"}
    assert left(asked.run) == left(calm.run) and set(left(calm.run)[1]) == {3, 6}
    for job in (calm, asked):
        shown = shown_by_tensorboard(job.run)
        assert [step for step, _ in shown["finetune/validation/CIDEr"]] == [3, 6], "no validation twice"
        pairs = [steps for tag, steps in shown.items() if tag.startswith("finetune/pairs/") and "text" not in tag]
        assert len(pairs) > 1 and all(steps == [(3, None), (6, None)] for steps in pairs)
