"""What trains: the options about workers and GPUs, resolved on the nodes that are there and kept to in each worker."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from cluster.config.fields import ClusterConfig, Config
from cluster.errors import ConfigError

CPU_WORKERS = 2  # where the number of workers is left open and no GPU is used
TOLERANCE = 1e-6  # of sums of fractions
NAMED_NODES = 4  # of a cluster, in a message


@dataclass(frozen=True)
class Placement:
    """The workers of a run in numbers; plain values, so that it pickles."""

    workers: int  # most of them, where their number is a range
    cpus_per_worker: float
    gpus_per_worker: float  # 0: they train on CPUs
    precision: Literal["fp32", "bf16"]
    least: int = 0  # fewest workers, where their number is a range; 0: it is `workers`

    @property
    def fewest(self) -> int:
        """Workers without which nothing starts."""
        return self.least or self.workers

    @property
    def backend(self) -> Literal["nccl", "gloo"]:
        """Of the process group. NCCL refuses two ranks on one GPU."""
        return "nccl" if self.gpus_per_worker >= 1 else "gloo"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for one worker."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a worker process has from its start: a worker on CPUs sees no GPU, and neither does DeepSpeed.

        DeepSpeed by itself takes any GPU that it sees, whatever device the worker was given.
        """
        if self.gpus_per_worker:
            return {"DS_ACCELERATOR": "cuda"}
        return {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}

    def __str__(self) -> str:
        if self.least:
            what = f"workers with {self.gpus_per_worker:g} GPUs each" if self.gpus_per_worker else "CPU workers"
            return f"{self.least} to {self.workers} {what}, {self.precision}"
        gpus = -(-self.workers * self.gpus_per_worker // 1)
        if not gpus:
            return f"{_count(self.workers, 'CPU worker')}, {self.precision}"
        shared = f" shared by {_count(self.workers, 'worker')}" if self.gpus_per_worker < 1 else ""
        return f"{_count(int(gpus), 'GPU')}{shared}, {self.precision}"


def place(cluster: ClusterConfig, nodes: Sequence[dict]) -> Placement:
    """The workers that the options come to on the nodes of a cluster, as `ray.nodes()` gives them.

    Whether there is room for all of them is for `require_room` to say. Raises ConfigError where GPUs are asked for and
    there is none.
    """
    there = [node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]]
    gpus = cluster.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if any(count >= 1 for count in there) else 0
    elif gpus and not any(count >= gpus for count in there):
        raise ConfigError(
            f"--cluster.gpus_per_worker {gpus:g} and the Ray cluster has no GPU: leave it out to train on CPUs"
        )
    least, most = cluster.worker_range
    workers = most or (sum(int(count / gpus + TOLERANCE) for count in there) if gpus else CPU_WORKERS)
    precision = cluster.precision
    if precision == "auto":
        precision = "bf16" if gpus else "fp32"
    return Placement(workers, cluster.cpus_per_worker, gpus, precision, least if least < most else 0)


def room(resources: dict[str, float], placement: Placement) -> int:
    """How many workers find room on one node. A worker is never spread over two."""
    return min(int(resources.get(name, 0) / need + TOLERANCE) for name, need in placement.resources.items())


def require_room(placement: Placement, nodes: Sequence[dict]) -> None:
    """Raises ConfigError where the nodes, one by one, have no room for all workers: Ray would wait for ever.

    The sum over all nodes says little: two nodes of 3 CPUs have room for two workers of 2 CPUs, not for three.
    """
    alive = [node for node in nodes if node["Alive"]]
    rooms = [room(node["Resources"], placement) for node in alive]
    if sum(rooms) >= placement.fewest:
        return
    named = [_node(node, count) for node, count in zip(alive, rooms, strict=True)]
    more = [f"{len(named) - NAMED_NODES} more"] if len(named) > NAMED_NODES else []
    asked = " and ".join(f"{value:g} {name}s" for name, value in placement.resources.items())
    fixes = [f"--cluster.workers {sum(rooms)}"] if sum(rooms) else []
    if placement.gpus_per_worker:
        fixes.append("a lower --cluster.cpus_per_worker where CPUs are short, --cluster.gpus_per_worker 0 for CPUs")
    else:
        fixes.append("a lower --cluster.cpus_per_worker")
    raise ConfigError(
        f"--cluster.workers {placement.fewest}, each with {asked}, find no room on the Ray cluster, which has room "
        f"for {sum(rooms)} ({', '.join(named[:NAMED_NODES] + more)}): give {' or '.join(fixes)}"
    )


def _node(node: dict, count: int) -> str:
    has = node["Resources"]
    gpus = f" and {has['GPU']:g} GPUs" if has.get("GPU") else ""
    return f"{node.get('NodeManagerHostname', '?')} with {has.get('CPU', 0):g} CPUs{gpus} for {count}"


def resolved(config: Config, placement: Placement) -> Config:
    """The configuration that workers are told: numbers where the options leave them open."""
    # Of a range, each group of workers takes its number from its process group.
    workers = config.cluster.workers if placement.least else placement.workers
    cluster = dataclasses.replace(
        config.cluster, workers=workers, gpus_per_worker=placement.gpus_per_worker, precision=placement.precision
    )
    return dataclasses.replace(config, cluster=cluster)


def local_gpus() -> int:
    """GPUs that this process sees; counted without a CUDA context."""
    return torch.cuda.device_count()


def expected_here(cluster: ClusterConfig) -> Placement:
    """What the options will come to on a Ray of our own, before there is one. ConfigError as of `place`."""
    return place(cluster, [{"Alive": True, "Resources": {"GPU": local_gpus()}}])


def choose_accelerator(device: torch.device, precision: str) -> None:
    """What has to hold in a worker before DeepSpeed is imported and CUDA is used: both keep to the worker's device.

    In fp32 matrix products are of fp32; otherwise those that autocast leaves in fp32 may be of TF32 on a GPU.
    """
    os.environ["DS_ACCELERATOR"] = device.type
    if device.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    os.environ.setdefault("NCCL_DEBUG", "WARN")  # else it fails without saying why
    exact = precision == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
