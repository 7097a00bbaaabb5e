"""One rank of a real all-reduce between all nodes: gloo, which every run uses, and NCCL where there are GPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from cluster.checks.finding import Finding, miss, ok

NUMBERS = 2**20  # float32: 4 MiB
INTERFACE = "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME (Slurm: IDC_INTERFACE) to the network that joins the nodes"


def all_reduce(settings: Mapping[str, Any]) -> list[Finding]:
    """settings: {"rank", "world", "address", "port": of rank 0, "gpu": number or None, "gpu_ranks", "limit_s"}.

    facts: {"milliseconds"} of the second sum.
    """
    rank, world, waits = settings["rank"], settings["world"], timedelta(seconds=settings["limit_s"])
    where = f"tcp://{settings['address']}:{settings['port']}"
    found = []
    try:
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world, timeout=waits)
        found.append(_sum("gloo", torch.device("cpu"), None, range(world)))
    except RuntimeError as error:  # of torch.distributed: DistBackendError, DistStoreError, DistNetworkError
        return [_failed("gloo", rank, world, where, error)]
    if settings["gpu_ranks"]:
        try:
            if settings["gpu"] is not None:
                torch.cuda.set_device(settings["gpu"])
            group = dist.new_group(settings["gpu_ranks"], backend="nccl", timeout=waits)
            if settings["gpu"] is not None:
                device = torch.device("cuda", settings["gpu"])
                found.append(_sum("nccl", device, group, settings["gpu_ranks"]))
        except RuntimeError as error:
            found.append(_failed("nccl", rank, len(settings["gpu_ranks"]), where, error))
    return found


def _sum(backend: str, device: torch.device, group: Any, ranks: Any) -> Finding:
    """The sum of rank + 1, twice: what the first one sets up takes longest."""
    took = 0.0
    for _ in range(2):
        numbers = torch.full((NUMBERS,), dist.get_rank() + 1.0, device=device)
        started = time.perf_counter()
        dist.all_reduce(numbers, group=group)
        right = bool((numbers == sum(rank + 1.0 for rank in ranks)).all())
        took = time.perf_counter() - started
        if not right:
            return miss(backend, f"the sum over {len(ranks)} ranks is wrong on rank {dist.get_rank()}", INTERFACE)
    return ok(backend, f"the sum over {len(ranks)} ranks is right", milliseconds=round(1000 * took, 1))


def _failed(backend: str, rank: int, world: int, where: str, error: Exception) -> Finding:
    said = " ".join(str(error).split())[:300]
    return miss(backend, f"rank {rank} of {world}, which meet at {where}, failed ({said})", INTERFACE)
