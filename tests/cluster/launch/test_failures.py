"""Why a group of workers ended, whether starting it again may mend that, and what the user is told."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
from testing.models.checkpoints import commit

from cluster.config.fields import ClusterConfig
from cluster.config.options import override
from cluster.distributed.devices import Placement
from cluster.errors import ConfigError, HungError, NoSpaceError, NotFiniteError, Stopped, TrainingError
from cluster.launch import asked
from cluster.recipes.registry import RECIPES
from cluster.training.job import Job
from idc.backbone.weights import BackboneError
from idc.captioning.model_folder import ExportError
from idc.captioning.tokenizer import TokenizerError
from shards.errors import DataError, Unreachable

DIED = "died"
ECHO = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")


def group_error(**causes: object):
    """What Ray Train's controller hands to its failure policy."""
    from ray.exceptions import ActorDiedError
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    gone = WorkerHealthCheckFailedError("a check failed", failure=ActorDiedError())
    return WorkerGroupError("failed", {int(rank[4:]): gone if one == DIED else one for rank, one in causes.items()})


def failure(**causes: object):
    from cluster.launch.failures import failure_of

    return failure_of(group_error(**causes))


@pytest.mark.parametrize(
    "cause",
    [OSError(errno.EIO, "Input/output error"), ConnectionResetError("reset"), RuntimeError("CUDA error"), DIED,
     Unreachable("s3://shards: no answer"), HungError("worker 0 does not answer"), TimeoutError()],
)  # fmt: skip
def test_what_passes_is_tried_again(cause: object, tmp_path: Path) -> None:
    assert failure(rank0=ECHO, rank1=cause).rank == 1
    assert failure(rank1=cause).passes(tmp_path)


@pytest.mark.parametrize(
    "cause",
    [DataError("bad"), ConfigError("bad"), BackboneError("bad"), ExportError("bad"), TokenizerError("bad"),
     NotFiniteError("loss"), NoSpaceError("full"), OSError(errno.ENOSPC, "No space left on device"),
     AssertionError("a fault of ours"), KeyError("a fault of ours")],
)  # fmt: skip
def test_what_comes_again_is_not(cause: Exception, tmp_path: Path) -> None:
    found = failure(rank0=ECHO, rank2=cause)
    assert found.rank == 2 and not found.passes(tmp_path)


def test_a_rank_that_lost_another_is_not_the_cause() -> None:
    assert failure(rank0=ECHO, rank1=DIED, rank2=ECHO).rank == 1
    assert failure(rank0=RuntimeError("odd"), rank1=DataError("bad")).rank == 1
    assert failure(rank0=ECHO).rank == 0, "nobody else has said anything"


def test_the_same_cause_is_known_by_what_does_not_change() -> None:
    one, other = (failure(rank0=RuntimeError(f"connection to port {port} refused")) for port in (1234, 5678))
    assert one.kind() == other.kind() != failure(rank0=RuntimeError("other")).kind()
    assert failure(rank0=DIED).kind() == failure(rank1=DIED).kind()


def test_what_the_user_is_told(tmp_path: Path) -> None:
    from cluster.launch.failures import as_told

    def told(cause: object, why: str = "") -> Exception:
        return as_told(failure(rank1=cause), tmp_path, ClusterConfig(), Placement(2, 1.0, 0, "fp32"), why)

    assert isinstance(told(BackboneError("no weights")), ConfigError)
    assert str(told(NotFiniteError("loss"))) == "loss"
    line = str(told(OSError(errno.EIO, "Input/output error"), "at finetune step 3, not started again"))
    assert line.startswith("training failed, worker 1: OSError: [Errno 5] Input/output error (traceback: ")
    assert line.endswith("rank_1.log); at finetune step 3, not started again") and "\n" not in line
    assert "Input/output error" in (tmp_path / "failure.txt").read_text()
    assert isinstance(told(OSError(errno.ENOSPC, "No space left on device")), NoSpaceError)
    assert type(told(HungError("worker 1 does not answer for 9 s"))) is TrainingError


def decide(run: Path, restarts: int, *causes: object) -> tuple[list[str], Exception | None, list[dict]]:
    """The decisions about these failures, one after another, what the driver raises, and the lines that it shows.

    An integer among them: before the next failure, pre-training has written a checkpoint of that step.
    """
    from cluster.launch.supervisor import Supervisor

    config = override(RECIPES["tiny"](), [("cluster.restarts", str(restarts))])
    job = Job(config, run, run, run, ("pretrain", "finetune"))
    supervisor = Supervisor(job, Placement(2, 1.0, 0, "fp32"))
    decisions = []
    for cause in causes:
        if isinstance(cause, int):
            commit(run / "checkpoints" / "pretrain", cause)
        else:
            decisions.append(supervisor.make_decision(group_error(rank0=ECHO, rank1=cause)).value)
    path = run / "restarts.jsonl"
    return decisions, supervisor.verdict, list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


def test_workers_are_started_again_so_often_and_no_more(tmp_path: Path) -> None:
    others = [DIED, OSError(errno.EIO, "Input/output error"), RuntimeError("CUDA error"), ConnectionResetError("reset")]
    decisions, verdict, said = decide(tmp_path, 3, *others)
    assert decisions == ["RETRY", "RETRY", "RETRY", "RAISE"]
    assert re.search(
        r"ConnectionResetError.*; at the start, not started again: --cluster.restarts 3 allows", str(verdict)
    )
    assert [one["line"].partition("goes on from ")[2] for one in said] == [
        f"the start of pretrain in {pause} s, restart {n} of 3" for n, pause in ((1, 1), (2, 2), (3, 4))
    ]
    assert decide(tmp_path, 0, DIED)[0] == ["RAISE"]
    decisions, verdict, _ = decide(tmp_path, 3, DIED, DIED)
    assert decisions == ["RETRY", "RAISE"] and "it is the same as at the failure before, at the start too" in str(
        verdict
    )


def test_the_pause_is_short_again_after_each_new_checkpoint(tmp_path: Path) -> None:
    others = [DIED, OSError(errno.EIO, "Input/output error"), 3, DIED, RuntimeError("CUDA error"), 6, DIED]
    decisions, _, said = decide(tmp_path, 9, *others)
    assert decisions == ["RETRY"] * 5
    assert [one["line"].partition("goes on from ")[2] for one in said] == [
        f"{place} in {pause} s, restart {n} of 9"
        for n, (place, pause) in enumerate([
            ("the start of pretrain", 1), ("the start of pretrain", 2), ("pretrain step 3", 1), ("pretrain step 3", 2),
            ("pretrain step 6", 1),
        ], start=1)
    ]  # fmt: skip


def test_what_a_restart_cannot_mend_ends_the_run_at_once(tmp_path: Path) -> None:
    decisions, verdict, said = decide(tmp_path, 3, DataError("bad: pack again"))
    assert (decisions, str(verdict), said) == (["RAISE"], "bad: pack again", [])


def test_a_failure_while_it_is_to_stop_is_a_stop(tmp_path: Path) -> None:
    (tmp_path / asked.FILE).touch()
    decisions, verdict, _ = decide(tmp_path, 3, DIED)
    assert decisions == ["RAISE"] and isinstance(verdict, Stopped)
    assert "the same command goes on from the start of pretrain" in str(verdict)
