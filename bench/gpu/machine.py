"""Part `machine`: what the figures were measured on."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from bench.gpu.record import ROOT, Record

PACKAGES = ("deepspeed", "ray", "triton", "numpy", "timm", "pytest")


def run(record: Record) -> None:
    found = {
        "card": "none", "card_memory_gib": None, "driver": "", "capability": "",
        "torch": torch.__version__, "cuda": torch.version.cuda or "", "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)), "processor": _processor(), "memory_gib": _memory_gib(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(),
        "gcc": bool(shutil.which("gcc")), "nvcc": bool(shutil.which("nvcc")), "java": bool(shutil.which("java")),
        "packages": {name: _version(name) for name in PACKAGES},
    }  # fmt: skip
    if record.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name, "card_memory_gib": round(card.total_memory / 2**30, 1), "driver": _driver(),
            "capability": f"{card.major}.{card.minor}", "cards": torch.cuda.device_count(),
            "triton_works": _triton_works(),
        }  # fmt: skip
    record.results |= found
    record.say(f"{found['card']}, driver {found['driver'] or '-'}, torch {found['torch']}, CUDA {found['cuda'] or '-'}")
    record.say(f"{found['cores']} cores, {found['memory_gib']} GiB, commit {found['commit']}")


def stamp(device: str) -> dict[str, str]:
    """What every table says it was measured on."""
    card = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"card": card, "torch": torch.__version__, "date": date, "commit": commit()}


def commit() -> str:
    """The commit of the checkout: $BENCH_COMMIT, else by git, else read from .git; "unknown" where there is none."""
    if os.environ.get("BENCH_COMMIT"):
        return os.environ["BENCH_COMMIT"][:10]
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=20)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True, timeout=20)
        if head.returncode == 0:
            return head.stdout.strip()[:10] + (" with changes" if changed.returncode else "")
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        text = (ROOT / ".git" / "HEAD").read_text().strip()
        if text.startswith("ref: "):
            text = (ROOT / ".git" / text.removeprefix("ref: ")).read_text().strip()
        return text[:10]
    except OSError:
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "there" if importlib.util.find_spec(name) else ""


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _triton_works() -> bool:
    """Whether torch.compile can make a kernel here: it needs triton, and triton a C compiler."""
    try:
        return bool((torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device="cuda")) == 3).all())
    except Exception:  # of many kinds, and each of them is the answer
        return False


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
