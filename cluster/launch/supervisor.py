"""Decides what becomes of a run: workers that fail are started again, workers that hang are ended, an ask to stop is
passed on. It lives in Ray Train's controller, which polls the workers about five times a second and tells it.
"""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from cluster.distributed import beat
from cluster.distributed.devices import Placement
from cluster.errors import HungError, Stopped
from cluster.launch.asked import is_asked
from cluster.launch.elastic import draining_nodes, free_room, room_at_all
from cluster.launch.failures import Failure, as_told, failure_of, is_echo
from cluster.launch.watch import Watch
from cluster.launch.workers import NodeLeaves
from cluster.tracking.run_log import RESTARTS
from cluster.training import checkpoint
from cluster.training.job import Job

LONGEST_PAUSE_S = 30.0
LOOK_S = 1.0  # between two looks at Ray's nodes
GROW_S = 60.0  # between two looks for room for more workers
POLL_S = 0.2
AS_ASKED = "as asked"


@dataclass(frozen=True)
class _Ask:
    """Why workers are asked to stop after the same step. `goes_on`: they are then started again."""

    why: str
    goes_on: bool


class Supervisor(FailurePolicy, WorkerGroupCallback):
    """Ray Train's failure policy of a run, and what watches over its workers."""

    def __init__(self, job: Job, placement: Placement) -> None:
        super().__init__(FailureConfig())  # --cluster.restarts counts
        self.verdict: Exception | None = None  # what the driver raises, once it has come to an end
        self._pause_until = 0.0  # before workers are started again
        self._job, self._placement, self._cluster = job, placement, job.config.cluster
        self._watch: Watch | None = None
        self._ask: _Ask | None = None
        self._reply: ray.ObjectRef | None = None  # of the first worker, to the ask
        self._restarts = 0
        self._from, self._tries = "", 0  # where workers went on the last time, and how often from there in a row
        self._last: tuple[tuple[str, int] | None, str] | None = None  # of the failure before: step reached and cause
        self._looked = self._looked_for_room = time.monotonic()
        self._grow_s = GROW_S

    @property
    def run(self) -> Path:
        """The run folder."""
        return self._job.run

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """The workers have begun."""
        self._watch = Watch(self._cluster.timeout_s, worker_group.get_workers())
        self._ask = self._reply = None
        self._looked_for_room = time.monotonic()

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Raises what ends this group of workers: a worker that hangs, an ask to stop while no step is under way."""
        if worker_group_status.errors or worker_group_status.finished or self._watch is None:
            return
        still = self._watch.look()
        if still:
            raise HungError(still)
        if self._ask is None:
            self._ask = self._asked(self._watch)
            if self._ask is None:
                return
            # The first decides after which step, which may follow a validation; that, each of them cuts short.
            self._reply, *_ = [one.execute_async(beat.ask_to_stop, self._ask.why) for one in self._watch.workers]
        if self._reply is not None and ray.wait([self._reply], timeout=0)[0]:
            first, self._reply = ray.get(self._reply), None
            if not first.stage and not first.ended:
                raise self.stopped(self._ask.why)

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Whether the workers are started again; `verdict` is what the driver raises if they are not."""
        failure, ask = failure_of(training_failed_error), self._ask
        reached = max(self._watch.places(), default=None, key=self._order) if self._watch else None
        if self._watch is not None and is_echo(failure.cause):
            # Whoever it has lost may not have been polled yet. If nobody has gone, somebody kept it waiting.
            failure = next((Failure(cause, rank) for rank, cause in self._watch.gone.items()), failure)
            if not failure.died:
                self._watch.keep_stacks(str(failure.cause))
        if isinstance(failure.cause, Stopped):
            goes_on = ask is not None and ask.goes_on and not is_asked(self.run)
            if goes_on and room_at_all(self._placement) >= self._placement.fewest:
                self._say(f"{str(failure.cause).partition(';')[0]}; workers are started again", failure, reached)
                return FailureDecision.RETRY
            return self._end(failure.cause)
        if isinstance(failure.cause, NodeLeaves) and not is_asked(self.run):
            if room_at_all(self._placement) < self._placement.fewest:
                return self._end(self.stopped(str(failure.cause)))
            self._say(f"stopped at the start {failure.cause}; workers are started again", failure, None)
            return FailureDecision.RETRY
        passes = failure.passes(self.run)
        if passes and is_asked(self.run):  # it fails while it is to stop
            return self._end(self.stopped(AS_ASKED))
        if failure.no_room and self._placement.least and not is_asked(self.run):
            return FailureDecision.RETRY  # a node has gone in the meantime; `Elastic` waits no longer than it may
        if not passes:
            return self._end(as_told(failure, self.run, self._cluster, self._placement))
        return self._start_again(failure, reached)

    def before_start(self) -> None:
        """Waits until workers may be started again; Stopped where the run is asked to stop in the meantime."""
        while time.monotonic() < self._pause_until:
            if is_asked(self.run):
                raise self.stopped(AS_ASKED)
            time.sleep(POLL_S)

    def stopped(self, why: str) -> Stopped:
        """Of a run that stops while no step is under way."""
        return Stopped(f"stopped {why}, no step was under way; the same command goes on from {self._newest()}")

    def _start_again(self, failure: Failure, reached: tuple[str, int] | None) -> FailureDecision:
        told = failure.told(self._watch.names if self._watch else {})
        at = "{} step {}".format(*reached) if reached else "the start"
        last, self._last = self._last, (reached, failure.kind())
        why = ""
        if self._last == last:
            why = f"not started again: it is the same as at the failure before, at {at} too"
        elif self._restarts >= self._cluster.restarts:
            why = f"not started again: --cluster.restarts {self._cluster.restarts} allows no more"
        if why:
            return self._end(as_told(failure, self.run, self._cluster, self._placement, f"at {at}, {why}"))
        self._restarts += 1
        newest = self._newest()
        self._from, self._tries = newest, self._tries + 1 if newest == self._from else 1
        pause = min(2.0 ** (self._tries - 1), LONGEST_PAUSE_S)  # short again after each new checkpoint
        self._pause_until = time.monotonic() + pause
        self._say(
            f"{told} at {at}: goes on from {newest} in {pause:.0f} s, restart {self._restarts} of "
            f"{self._cluster.restarts}", failure, reached,
        )  # fmt: skip
        return FailureDecision.RETRY

    def _end(self, verdict: Exception) -> FailureDecision:
        self.verdict = verdict
        return FailureDecision.RAISE

    def _asked(self, watch: Watch) -> _Ask | None:
        """Whether somebody, or something, wants the workers to stop."""
        if is_asked(self.run):
            return _Ask(AS_ASKED, False)
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return None
        self._looked = now
        leaving = draining_nodes()
        hosts = {one.metadata.hostname for one in watch.workers if one.metadata.node_id in leaving}
        if hosts:
            return _Ask(f"because {', '.join(sorted(hosts))} is being drained", True)
        if self._placement.least and now - self._looked_for_room > self._grow_s:
            self._looked_for_room = now
            here = len(watch.workers)
            room = min(here + free_room(self._placement), self._placement.workers)
            if room > here and len(watch.places()) == here:  # all of them train
                return _Ask(f"because there is room for {room} workers in place of {here}", True)
        return None

    def _order(self, place: tuple[str, int]) -> tuple[int, int]:
        return self._job.config.stages.index(place[0]), place[1]

    def _newest(self) -> str:
        """Where workers will go on."""
        for stage in self._job.stages:
            newest = checkpoint.latest(self.run / "checkpoints" / stage)
            if newest is None:
                return f"the start of {stage}"
            if newest.commit.step < self._job.config.stage(stage).steps:
                return f"{stage} step {newest.commit.step}"
        return "the end of training"

    def _say(self, line: str, failure: Failure, reached: tuple[str, int] | None) -> None:
        """A line of the run's restarts.jsonl, which the driver shows."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "line": line, "rank": failure.rank, "reached": reached, "restart": self._restarts}
        with (self.run / RESTARTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
