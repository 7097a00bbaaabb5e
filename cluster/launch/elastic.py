"""How many workers there is room for, where --cluster.workers is a range.

Ray's own policy for that asks an actor which learns of a dead node only after a while, and then waits for workers that
cannot come; it also ends a group without a checkpoint in order to enlarge it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray._private.state import available_resources_per_node, state
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy
from ray.train.v2.api.config import ScalingConfig

from cluster.config.fields import ClusterConfig
from cluster.distributed.devices import Placement, room
from cluster.launch.failures import not_started

SETTLE_S = 5.0  # until Ray knows what a group that has ended leaves free
KNOCK_S = 2.0  # for a node to answer
POLL_S = 0.3


def draining_nodes() -> set[str]:
    """The ids of Ray's nodes that are about to be taken away (`ray drain-node`)."""
    return set(state.get_draining_nodes())


def room_at_all(placement: Placement) -> int:
    """Workers that Ray's nodes have room for, those that are about to leave left out, if nobody else used them."""
    return sum(room(node["Resources"], placement) for node in _staying())


def free_room(placement: Placement) -> int:
    """Workers that Ray's nodes have room for now."""
    free = available_resources_per_node()
    return sum(room(free.get(node["NodeID"], {}), placement) for node in _staying() if _answers(node))


def _staying() -> Iterator[dict[str, Any]]:
    leaving = draining_nodes()
    return (node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving)


def _answers(node: dict[str, Any]) -> bool:
    """Whether a node is there: it takes Ray a while to find out that one is not."""
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=KNOCK_S).close()
    except OSError:
        return False
    return True


class Elastic(ScalingPolicy):
    """As many workers as there is room for. Growing is for the supervisor to ask for: it ends in a checkpoint first."""

    def __init__(self, scaling_config: ScalingConfig, placement: Placement, cluster: ClusterConfig) -> None:
        super().__init__(scaling_config)
        self._placement, self._cluster = placement, cluster
        self._waits_since: float | None = None

    def _get_num_workers_for_resource_request(self) -> int:
        return self._placement.workers

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Starts workers as soon as all that there can be have room, after SETTLE_S as many as have it."""
        self._maybe_send_resource_request()
        now = time.monotonic()
        self._waits_since = now if self._waits_since is None else self._waits_since
        waited = now - self._waits_since
        free, wanted = free_room(self._placement), min(room_at_all(self._placement), self._placement.workers)
        if free >= max(wanted, self._placement.fewest) or (waited > SETTLE_S and free >= self._placement.fewest):
            return ResizeDecision(min(free, self._placement.workers), self._placement.resources)
        if waited > self._cluster.timeout_s:
            raise not_started(self._cluster, self._placement)
        time.sleep(POLL_S)
        return NoopDecision()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """None: they run."""
        self._maybe_send_resource_request()
        self._waits_since = None
        return NoopDecision()
