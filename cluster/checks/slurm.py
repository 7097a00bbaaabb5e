"""What Slurm allocated on a node against what a process sees there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.checks.finding import Finding, ok, warn

MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def look(settings: Mapping[str, Any]) -> list[Finding]:
    """CPUs and memory of the allocation; GPUs are compared where torch is asked. Nothing outside of one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return []
    cpus, seen = int(os.environ.get("SLURM_CPUS_ON_NODE") or 0), len(os.sched_getaffinity(0))
    found = [] if seen >= cpus else [
        warn("slurm", f"job {job}: {cpus} CPUs allocated, {seen} to be used here", "srun --cpu-bind=none")
    ]  # fmt: skip
    memory, there = allocated_mib(os.environ), _memory_mib()
    if memory > there:
        found.append(warn("slurm", f"job {job}: {memory} MiB allocated, {there} MiB here", "lower --mem of the job"))
    if found:
        return found
    limit = f"{memory} MiB of memory" if memory else "memory without a limit of the job"
    return [ok("slurm", f"job {job}: {cpus} CPUs and {limit}, and they are there")]


def allocated_mib(environment: Mapping[str, str]) -> int:
    """Memory of the job on a node, MiB; 0: not limited."""
    if whole := environment.get("SLURM_MEM_PER_NODE"):
        return int(whole)
    return int(environment.get("SLURM_MEM_PER_CPU") or 0) * int(environment.get("SLURM_CPUS_ON_NODE") or 0)


def _memory_mib() -> int:
    """What this process may use: of the machine, or of its cgroup where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in MEMORY:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return total // 2**20
