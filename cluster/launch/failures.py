"""What ended a group of workers: whether starting it again may mend that, and how it is told."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import TrainingFailedError

from cluster.config.fields import ClusterConfig
from cluster.distributed.devices import Placement
from cluster.distributed.ranks import lost_a_rank
from cluster.errors import ConfigError, HungError, NoSpaceError, TrainingError
from cluster.tracking.worker_logs import log_of
from cluster.training.disk_space import no_space
from idc.backbone.weights import BackboneError
from idc.captioning.model_folder import ExportError
from idc.captioning.tokenizer import TokenizerError
from shards.errors import DataError, Unreachable
from shards.format.whole_files import write_whole

FAILURE = "failure.txt"
# What the user has to mend, or what would come out the same again.
_FINAL = (DataError, BackboneError, ExportError, TokenizerError, TrainingError)
# Machines, networks and file systems that fail: torch, NCCL, gloo and CUDA raise RuntimeErrors.
_PASSING = (OSError, RuntimeError, MemoryError, ray.exceptions.RayError, WorkerGroupStartupFailedError,
            WorkerHealthCheckTimeoutError)  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """Why a group of workers ended. `rank`: of the worker that was first to fail, None: it was none of them."""

    cause: BaseException
    rank: int | None = None

    @property
    def died(self) -> bool:
        """True if a worker's process, or its node, has gone."""
        return isinstance(self.cause, ray.exceptions.RayError)

    @property
    def no_room(self) -> bool:
        """True if no worker could be started for want of room."""
        return isinstance(self.cause, WorkerGroupStartupTimeoutError)

    def passes(self, run: Path) -> bool:
        """True if the workers may do better when they are started again."""
        if isinstance(self.cause, (Unreachable, HungError)):
            return True
        may = isinstance(self.cause, _PASSING) and not isinstance(self.cause, _FINAL)
        return may and no_space(self.cause, run) is None

    def kind(self) -> str:
        """What two failures of the same cause have in common."""
        return "died" if self.died else re.sub(r"\d+", "#", f"{type(self.cause).__name__}: {self.cause}")

    def told(self, names: Mapping[int, str]) -> str:
        """What happened, in words; `names`: rank -> "worker 1 on HOST, process 123"."""
        who = names.get(self.rank, f"worker {self.rank}") if self.rank is not None else ""
        if self.died and who:
            return f"the node of {who} is gone" if "node has died" in str(self.cause) else f"{who} died"
        if isinstance(self.cause, HungError):
            return str(self.cause)
        return f"{who}{': ' if who else ''}{one_line(self.cause)}"


def failure_of(error: TrainingFailedError) -> Failure:
    """The failure that started it: a rank that lost its connection to another one only says that this one has gone."""
    if not (causes := _causes(error)):
        return Failure(getattr(error, "controller_failure", error))
    first = min(causes, key=lambda rank: _weight(causes[rank]))
    return Failure(causes[first], first)


def _weight(cause: BaseException) -> int:
    """The lower, the more a cause explains those of other ranks."""
    if isinstance(cause, _FINAL):
        return 0
    if no_space(cause, Path("/")) is not None:
        return 1
    return 3 if is_echo(cause) else 2


def is_echo(cause: BaseException) -> bool:
    """True of what a rank says because another one has gone."""
    return not isinstance(cause, ray.exceptions.RayError) and lost_a_rank(cause)


def _causes(error: TrainingFailedError) -> dict[int, BaseException]:
    failures: dict[int, Any] = getattr(error, "worker_failures", {})
    causes: dict[int, BaseException] = {}
    for rank, failure in failures.items():
        cause = getattr(failure, "_base_exc", failure)
        inner = cause.health_check_failure if isinstance(cause, WorkerHealthCheckFailedError) else None
        causes[rank] = inner or cause
    return causes


def as_told(failure: Failure, run: Path, cluster: ClusterConfig, placement: Placement, why: str = "") -> Exception:
    """The exception that the driver raises, as the user should see it; `why`: it was not tried again."""
    cause = failure.cause
    if failure.no_room:
        return not_started(cluster, placement)
    if isinstance(cause, (BackboneError, ExportError, TokenizerError)):
        return ConfigError(str(cause))
    if isinstance(cause, (DataError, TrainingError)) and not isinstance(cause, (NoSpaceError, HungError)):
        return cause
    end = f"; {why}" if why else ""
    if isinstance(cause, HungError):
        return TrainingError(f"training failed, {cause}{end}")
    if failure.rank is None:
        return TrainingError(f"training failed, {one_line(cause)}{_kept(run, cause)}){end}")
    said = f"{_kept(run, cause)}, its output: {log_of(run, failure.rank)})"
    full = cause if isinstance(cause, NoSpaceError) else no_space(cause, run)
    if full is not None:
        return NoSpaceError(f"{full}{said}")
    return TrainingError(f"training failed, worker {failure.rank}: {one_line(cause)}{said}{end}")


def _kept(run: Path, error: BaseException) -> str:
    """Writes the traceback into the run folder; where it is, behind an opening bracket."""
    text = getattr(error, "worker_traceback", None) or "".join(traceback.format_exception(error))
    try:
        write_whole(run / FAILURE, text.rstrip() + "\n")
    except OSError as fault:  # the disk is full
        return f" (traceback: not written, {fault.strerror}"
    return f" (traceback: {run / FAILURE}"


def not_started(cluster: ClusterConfig, placement: Placement) -> TrainingError:
    """Why a group of workers did not start: what it waited for, and what is free on the nodes."""
    free = ray.available_resources()
    wanted = " and ".join(f"{value:g} {name}s" for name, value in placement.resources.items())
    left = " and ".join(f"{free.get(name, 0):g} {name}s" for name in placement.resources)
    return TrainingError(
        f"no room was free within --cluster.timeout_s {cluster.timeout_s} for {placement.fewest} workers, each with "
        f"{wanted}: the nodes of the Ray cluster have {left} free, the rest is in use by others; wait for them, or "
        f"lower --cluster.workers"
    )


def one_line(error: BaseException) -> str:
    """Type and message of an exception."""
    text = " ".join(str(error).split())
    if not text:  # an assertion without words: the line that it stands in
        lines = getattr(error, "worker_traceback", "").rstrip().splitlines()
        text = " ".join(line.strip() for line in lines[-3:-1]) or "no message"
    return f"{type(error).__name__}: {text[:300]}"
