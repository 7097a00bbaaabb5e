"""Ray Train's group of workers with an end to its start, and without an actor that is of no use.

Ray's own waits for its actors without a limit. A node that is about to leave refuses them, and a machine may be too
slow; either way it would wait for ever. It also starts an actor by which workers that report to Ray Train wait for each
other, a process of 200 MB. Ours do not report.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.util import placement_group_table, remove_placement_group

from cluster.distributed.worker_process import RayTrainWorker
from cluster.launch.elastic import draining_nodes
from cluster.launch.watch import START_S

LOOK_S = 0.5  # between two looks at the nodes that the workers are to be on


class NodeLeaves(WorkerGroupStartupFailedError):
    """A group that was starting when one of its nodes was drained."""


class _Guard:
    """Gives the places of a group back if its start has to end: then its actors fail, and Ray waits no more."""

    def __init__(self, group: Any, limit_s: float) -> None:
        self._group, self._limit = group, limit_s
        self.why: WorkerGroupStartupFailedError | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="start of the workers", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The start is over, well or not."""
        self._started.set()
        self._thread.join()

    def _watch(self) -> None:
        deadline = time.monotonic() + self._limit
        while not self._started.wait(LOOK_S):
            nodes = set(placement_group_table(self._group)["bundles_to_node_id"].values())
            if leaving := nodes & draining_nodes():
                hosts = {node["NodeManagerHostname"] for node in ray.nodes() if node["NodeID"] in leaving}
                self.why = NodeLeaves(f"because {', '.join(sorted(hosts))} is being drained")
            elif time.monotonic() > deadline:
                self.why = WorkerGroupStartupFailedError(
                    f"the workers did not start within {self._limit:.0f} s, --cluster.timeout_s or {START_S:.0f}, the "
                    f"longer"
                )
            if self.why is not None:
                remove_placement_group(self._group)
                return


class _NoActor:
    """In place of Ray Train's SynchronizationActor."""

    @classmethod
    def options(cls, **_: Any) -> type[_NoActor]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> _NoActor:
        return cls()


worker_group.SynchronizationActor = _NoActor  # type: ignore[misc, assignment]
state._shutdown_sync_actor = lambda sync_actor: None


class Workers(WorkerGroup):
    """Starts within --cluster.timeout_s or START_S, the longer, and leaves nothing behind if it does not."""

    _worker_cls = RayTrainWorker
    _guard: _Guard | None = None

    def _create_workers(self, num_workers: int, placement_group: Any, *rest: Any, **named: Any) -> Any:
        self._guard = _Guard(placement_group, max(self._worker_health_check_timeout_s, START_S))
        return super()._create_workers(num_workers, placement_group, *rest, **named)

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        try:
            super()._start_impl(worker_group_state_builder)
        except Exception as error:
            # Ray cleans up after a start that fails early; what it has registered by then it would leave behind.
            self._clear_state()
            if self._guard is not None and self._guard.why is not None:
                raise self._guard.why from error
            raise
        finally:
            if self._guard is not None:
                self._guard.end()

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, arguments: dict[str, list]) -> None:
        """Ray's, but for the two actors that are not there."""
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=None,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[n] for name, values in arguments.items()},
            )
            for n, worker in enumerate(workers)
        ]
        ray.get(begun)
        self._decorate_worker_log_file_paths(workers)
