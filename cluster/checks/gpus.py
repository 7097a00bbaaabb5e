"""The GPUs as torch sees them, and whether they compute; the driver; the code that a worker would run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cluster import CODE
from cluster.checks.finding import Finding, miss, ok, warn
from cluster.launch.run_folder import code_state

DRIVER = Path("/proc/driver/nvidia")
SIDE = 512  # of the matrices that are multiplied
LEAST_FREE = 0.5  # of a GPU's memory


def look(settings: Mapping[str, Any]) -> list[Finding]:
    """What torch sees and can use; facts: {"gpus": number}, {"sha256": of the code}."""
    return [*_gpus(torch.cuda.device_count()), _code()]


def _gpus(count: int) -> list[Finding]:
    there = len(list((DRIVER / "gpus").iterdir())) if (DRIVER / "gpus").is_dir() else 0
    built = f"torch {torch.__version__}, built for " + (f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs")
    granted = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    if count < granted:
        return [miss("gpus", f"Slurm granted {granted} GPUs and torch sees {count} ({built})", _fix(), gpus=count)]
    if not count and there:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        said = f"{there} GPUs with driver {_driver()}, of which torch sees none ({built})"
        found = warn if hidden else miss
        return [found("gpus", said, "unset CUDA_VISIBLE_DEVICES" if hidden else _fix(), gpus=0)]
    if not count:
        return [ok("gpus", f"none, workers train on CPUs with gloo ({built})", gpus=0)]
    return [ok("gpus", f"{count}, driver {_driver()}, {built}", gpus=count), *map(_gpu, range(count))]


def _fix() -> str:
    if torch.version.cuda is None:
        return "install the CUDA build of torch"
    return "is the driver new enough for this CUDA, and did the job ask for GPUs (--gpus-per-node)?"


def _gpu(number: int) -> Finding:
    """Whether a GPU multiplies as the CPU does, and what is free of its memory."""
    name = f"{number} {torch.cuda.get_device_name(number)}"
    try:
        one = torch.randint(-4, 5, (SIDE, SIDE)).float()  # whole numbers: sums are exact in any order and in TF32
        right = torch.equal((one.to(f"cuda:{number}") @ one.to(f"cuda:{number}")).cpu(), one @ one)
        free, total = torch.cuda.mem_get_info(number)
    except RuntimeError as error:
        return miss("gpus", f"{name} does not compute ({str(error).splitlines()[0]})", "look at it with nvidia-smi")
    if not right:
        return miss("gpus", f"{name} multiplies wrongly", "leave it out by CUDA_VISIBLE_DEVICES, and have it replaced")
    said = f"{name}: {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, multiplies rightly"
    if free < LEAST_FREE * total:
        return warn("gpus", said, "another process uses it: see nvidia-smi")
    return ok("gpus", said)


def _driver() -> str:
    try:
        words = (DRIVER / "version").read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit()), "unknown")


def _code() -> Finding:
    state = code_state(CODE)
    commit = (
        f"commit {state['commit'][:10]}{' with changes' if state['dirty'] else ''}" if state["commit"] else "no git"
    )
    return ok("code", f"{CODE}, {commit}, sha256 {state['sha256'][:10]}", sha256=state["sha256"])
