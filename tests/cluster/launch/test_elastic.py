"""A range of workers on a Ray of several nodes: it grows when one comes, and goes on when one is drained or dies."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.core.generated import autoscaler_pb2
from ray.util import placement_group_table
from testing.machines.ray_head import QUICK

from cluster.config.options import override
from cluster.distributed.own_ray import leave_out_processes
from cluster.errors import Stopped
from cluster.launch import ray_train, supervisor
from cluster.tracking.run_log import read_metrics
from cluster.training.checkpoint import latest
from cluster.training.job import Job

pytestmark = pytest.mark.ray

LIMIT_S = 120
STORE = {"object_store_memory": 128 * 2**20}
STEPS = 200


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray of two nodes with a CPU each, all on this machine; the driver is on the first."""
    from ray.cluster_utils import Cluster

    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    leave_out_processes()  # of the dashboard, on up to four nodes
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
    try:
        made.add_node(num_cpus=1, **STORE)
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made
    finally:
        made.shutdown()


def job(tiny: Any, run: Path, workers: str, steps: int) -> Job:
    """Pre-training without dropout, whose losses depend neither on the number of workers nor on that of steps."""
    run.mkdir(parents=True)
    config = override(tiny.config, [
        ("cluster.gpus_per_worker", "0"), ("cluster.workers", workers), ("pretrain.steps", str(steps)),
        ("pretrain.checkpoint_every", "20"), ("pretrain.schedule", "constant"), ("pretrain.lr", "1e-4"),
        ("model.dropout", "0"), ("name", run.name),
    ])  # fmt: skip
    return Job(config, run, tiny.shards, tiny.features, ("pretrain",))


def drain(node: str) -> None:
    """What `ray drain-node` does, which takes seconds to start: on a busy machine the run would be over by then."""
    client = ray._raylet.GcsClient(address=os.environ["RAY_ADDRESS"])
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node, reason, "test", int(1000 * (time.time() + 100)))
    assert accepted, why


def drain_at_the_start(node: str) -> None:
    """As soon as three workers have their places, before they are there."""
    deadline = time.monotonic() + LIMIT_S
    while not (ray.is_initialized() and any(len(one["bundles"]) == 3 for one in placement_group_table().values())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    drain(node)


def restarts(run: Path) -> list[dict]:
    path = run / "restarts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def ranks(run: Path) -> list[int]:
    """How often each rank began."""
    return [(run / "logs" / f"rank_{rank}.log").read_text().count(f" rank {rank} on ") for rank in range(3)]


def losses(run: Path) -> list[tuple[int, dict[str, float]]]:
    return [(record["step"], record["loss"]) for record in read_metrics(run)]


def while_it_trains(fitting: Job, disturb: Callable[[], None]) -> None:
    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    ray_train.fit(fitting)
    thread.join(10)
    assert not thread.is_alive()


def wait(run: Path, restarted: int, further: int) -> None:
    """Until a run that has been restarted so often is so many steps further than before."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        found = restarts(run)
        reached = found[-1]["reached"][1] if found and found[-1]["reached"] else 0
        if len(found) == restarted and max((one for one, _ in losses(run)), default=0) >= reached + further:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_grows_and_goes_on_with_the_nodes_that_are_left(
    nodes: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GROW_S", 1.0)
    # They set signal handlers, which a thread may not; the fixture ends the nodes.
    monkeypatch.setattr("ray._private.node.Node._register_shutdown_hooks", lambda node: None)
    run = tmp_path / "run"

    (first,) = nodes.worker_nodes
    leaves = nodes.add_node(num_cpus=1, **STORE)

    def disturb() -> None:
        drain_at_the_start(leaves.node_id)
        while not (run / "logs" / "rank_1.log").is_file():  # two workers have begun
            time.sleep(0.02)
        comes = nodes.add_node(num_cpus=1, **STORE)
        wait(run, 2, 5)
        drain(first.node_id)
        wait(run, 3, 5)
        nodes.remove_node(comes, allow_graceful=False)  # kill -9

    while_it_trains(job(tiny, run, "1..3", STEPS), disturb)
    begun, grown, drained, killed = [one["line"] for one in restarts(run)]
    assert "stopped at the start because " in begun and "is being drained; workers are started again" in begun
    assert "because there is room for 3 workers in place of 2, checkpoint committed; workers are started" in grown
    assert "is being drained, checkpoint committed; workers are started again" in drained
    assert "at pretrain step " in killed and "restart 1 of 3" in killed
    assert ranks(run) == [4, 3, 1]

    # Nodes that are dead or about to leave take no workers: there is room for one. When its node is drained too,
    # nothing is left to train on: the run ends with its checkpoint, and the same command would go on.
    alone = job(tiny, tmp_path / "alone", "1", 100_000)

    def drain_the_last() -> None:
        wait(alone.run, 0, STEPS)
        drain(nodes.head_node.node_id)

    with pytest.raises(Stopped, match=r"stopped at pretrain step \d+ because \S+ is being drained, checkpoint comm"):
        while_it_trains(alone, drain_the_last)
    calm = losses(alone.run)
    assert latest(alone.run / "checkpoints" / "pretrain").commit.step == calm[-1][0]
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    for (_, one), (_, other) in zip(losses(run), calm[:STEPS], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
