"""A Ray head of this machine, for the tests that do not start a Ray of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from testing.machines.servers import end
from testing.suite import marked

from bench.disturbed.servers import wait_until_it_listens

ROOT = Path(__file__).resolve().parents[3]
RAY = Path(sys.executable).with_name("ray")
LEAN = [sys.executable, "-m", "cluster.distributed.own_ray"]  # `ray start` without what belongs to a dashboard
# As slurm/node.sh has it: workers as quick as anything else here, and none beside those that are asked for.
QUICK = {"RAY_worker_niceness": "0", "RAY_prestart_worker_first_driver": "0"}


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def ray_head(*options: str, **variables: str) -> Iterator[tuple[str, int]]:
    """The address of a head of two CPUs, and the number of the process that leads it; all its processes end with it.

    It is at work in a folder of its own and has this process's environment without secrets, and `variables`; workers
    find the code and what tests share. `options` are those of `ray start`. There is no dashboard, nor anything of it.
    """
    marked.needs("ray")
    from cluster.launch.credentials import SECRETS  # here: what workers import must be quick to import

    port, client, agent, agent_grpc = free_ports(4)  # Ray's own choices are the same for every head of a machine
    # A training on CPUs in this process has hidden all GPUs; those of a head here are numbers.
    here = {name: value for name, value in os.environ.items() if name not in (*SECRETS, "CUDA_VISIBLE_DEVICES")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    here |= {"PYTHONPATH": path} | QUICK | variables
    # Short: socket paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray = subprocess.Popen(
            [*LEAN, "--head", "--block", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}",
             "--object-store-memory=134217728", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
             f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
             f"--dashboard-agent-grpc-port={agent_grpc}", "--min-worker-port=0", "--max-worker-port=0", *options],
            cwd=folder, env=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until_it_listens(port, ray, lambda: "the Ray head does not start")
            yield f"127.0.0.1:{port}", ray.pid
        finally:
            end(ray, limit_s=5)
