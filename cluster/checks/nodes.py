"""Who looks at a node: this process at its own, an actor of Ray's at each node of a cluster. Every wait has a limit."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cluster import CODE
from cluster.checks import limited
from cluster.checks.finding import Finding, miss

T = TypeVar("T")
Job = tuple[str, dict[str, Any]]  # a check's name, its settings
START_S = 60  # until Ray has a process on a node, besides the limit of the checks
CALL_S = 10  # of a call that answers at once
PLACES = "the same checkout and environment must lie at the same path on every node, and Ray's node must be alive"


class Probe:
    """Looks at the node that it is on."""

    def look(self, jobs: Sequence[Job], limit_s: float) -> list[Finding]:
        """What these checks find, all at once; within `limit_s` and a moment."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            found = pool.map(lambda job: limited.run(job[0], job[1], limit_s), jobs)
            return [one for several in found for one in several]

    def clock(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def free_port(self) -> int:
        """A port that nobody listens on."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return probe.getsockname()[1]


@dataclass(frozen=True)
class Node:
    """A machine and how to ask its probe."""

    name: str
    address: str
    call: Callable[..., Future]  # the name of a method of Probe, its arguments


def here() -> list[Node]:
    """This machine alone."""
    probe = Probe()

    def call(method: str, *arguments: Any) -> Future:
        return in_thread(lambda: getattr(probe, method)(*arguments))

    return [Node("", "127.0.0.1", call)]


def of_ray(address: str, limit_s: float) -> list[Node]:
    """The nodes of the cluster at HOST:PORT. Raises OSError where nothing listens there, RuntimeError as Ray does."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=min(limit_s, CALL_S)).close()  # Ray's own attempts take 40 s
    return in_thread(lambda: _connect(address)).result(limit_s)


def _connect(address: str) -> list[Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Ray puts the folder that it is started in first on its workers' path (cluster.launch.ray_train).
    with contextlib.chdir(sys.prefix if (CODE / "ray").exists() else CODE):
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = [node["NodeManagerHostname"] for node in alive]
    found = []
    for node, name in zip(alive, names, strict=True):
        actor = ray.remote(Probe).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            # Of a process that asks for no GPU, Ray would hide them all.
            runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
        ).remote()  # fmt: skip

        def call(method: str, *arguments: Any, actor: Any = actor) -> Future:
            return getattr(actor, method).remote(*arguments).future()

        unique = name if names.count(name) == 1 else f"{name}/{node['NodeID'][:6]}"
        found.append(Node(unique, node["NodeManagerAddress"], call))
    return found


def leave_ray() -> None:
    """Disconnects; a Ray that does not answer is left behind."""
    import ray

    with contextlib.suppress(TimeoutError):
        in_thread(ray.shutdown).result(CALL_S)


def look_everywhere(
    nodes: Sequence[Node], jobs: Callable[[int], Sequence[Job]], limit_s: float
) -> tuple[list[list[Finding]], list[Node]]:
    """(what was found on each node, the nodes that answered); `jobs`: of the node of that number.

    A node that does not answer in time has one finding, that says so.
    """
    futures = [node.call("look", jobs(number), limit_s) for number, node in enumerate(nodes)]
    until = time.monotonic() + limit_s + START_S
    found, answered = [], []
    for node, future in zip(nodes, futures, strict=True):
        try:
            several = future.result(max(until - time.monotonic(), 0.0))
            answered.append(node)
        except TimeoutError:
            several = [miss("node", f"no answer within {limit_s + START_S:g} s: it waited for a process there", PLACES)]
        except Exception as error:  # whatever Ray raises for a node that is gone, or code that is not there
            several = [miss("node", f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}", PLACES)]
        found.append([replace(one, node=node.name) for one in several])
    return found, answered


def in_thread(work: Callable[[], T]) -> Future[T]:
    """The result to come of `work`, in a thread that does not keep a finished program alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # carried to the one who waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
