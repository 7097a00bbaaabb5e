"""Machines that go: a node that dies, and one that is about to be taken away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.disturbed.compare import Bench, Found, difference

STORE = {"object_store_memory": 128 * 2**20}
BOUND = 1e-5  # of losses where fewer workers go on


def node(bench: Bench) -> Found:
    """kill -9 of a node's raylet, of two nodes with a worker each: one worker goes on, within 1e-5"""
    return _on_two_nodes(bench, "node", lambda cluster, other: cluster.remove_node(other, allow_graceful=False))


def drain(bench: Bench) -> Found:
    """Ray's drain of a node, of two nodes with a worker each: one worker goes on, within 1e-5"""

    def leave(cluster: Any, other: Any) -> None:
        ray = Path(sys.executable).with_name("ray")
        subprocess.run(
            [ray, "drain-node", "--address", cluster.address, "--node-id", other.node_id, "--reason",
             "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "bench", "--deadline-remaining-seconds", "100"],
            check=True, timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    return _on_two_nodes(bench, "drain", leave)


def _on_two_nodes(bench: Bench, name: str, strike: Callable[[Any, Any], None]) -> Found:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
    try:
        other = cluster.add_node(num_cpus=1, **STORE)
        run = bench.run(name, "--cluster.workers", "1..2", RAY_ADDRESS=cluster.address)
        run.wait(lambda: run.reached() >= 45)
        since = time.time()
        strike(cluster, other)
        found = bench.restarted(run, name, since)
    finally:
        cluster.shutdown()
    off = difference(run.records(), bench.alone.records())
    return replace(found, equal=off < BOUND, said=f"largest difference {off:.1g}; {found.said}")
