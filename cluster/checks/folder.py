"""The folder that all nodes share: written, flushed, renamed and locked on each, and read back on every other."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.checks.finding import Finding, miss, ok, warn

CHECK = "folder"
LATE_S = 5.0  # until another node's file is seen
SKEW_S = 1.0  # between a node's clock and the folder's
SHARE = "name a folder that all nodes share by --root or IDC_HOME"


def place_of(settings: Mapping[str, Any]) -> Path:
    """The folder of the check's own files, below the root; the same for all nodes."""
    return Path(settings["root"]) / f".doctor-{settings['token']}"


def write(settings: Mapping[str, Any]) -> list[Finding]:
    """Writes this node's file as checkpoints are written, and takes locks as a run folder's.

    settings: {"root", "token": of this examination, "node": a file's name}. facts: {"first": this node got the lock
    that all try for}.
    """
    root, place = Path(settings["root"]), place_of(settings)
    if not root.is_dir():
        return [miss(CHECK, f"{root} is no folder", f"mkdir -p {root}, or {SHARE}")]
    own = place / settings["node"]
    try:
        place.mkdir(exist_ok=True)
        started = time.perf_counter()
        partial = own.with_suffix(".partial")
        with open(partial, "w") as file:
            file.write(settings["token"])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, own)
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        took = time.perf_counter() - started
        locks = [_locks(own.with_suffix(".lock")) for _ in range(2)]
        first = _locks(place / "lock")
        skew = time.time() - own.stat().st_mtime - (time.perf_counter() - started - took)
    except OSError as error:
        return [miss(CHECK, f"{root} cannot be written ({error.strerror})", SHARE)]
    if locks != [True, False]:
        return [miss(CHECK, f"{root}: a file made with O_EXCL can be made twice, so locks do not hold", SHARE)]
    found = [ok(CHECK, f"{root}: write, fsync, rename and lock", first=first, milliseconds=round(1000 * took, 1))]
    if abs(skew) > SKEW_S:
        found.append(warn("clock", f"{skew:+.1f} s from the clock of {root}", "run an NTP service on both"))
    return found


def read_back(settings: Mapping[str, Any]) -> list[Finding]:
    """Looks for the files of all nodes. settings: as of `write`, and {"nodes": file names, "limit_s"}."""
    place, started = place_of(settings), time.monotonic()
    waiting = list(settings["nodes"])
    while True:
        waiting = [name for name in waiting if not _holds(place / name, settings["token"])]
        took = time.monotonic() - started
        if not waiting or took > settings["limit_s"] / 2:
            break
        time.sleep(0.1)
    if waiting:
        said = f"{settings['root']}: what {', '.join(waiting[:3])} wrote is not there after {took:.0f} s"
        return [miss("readback", said, SHARE)]
    count = len(settings["nodes"])
    said = f"the files of {count} nodes are read back" if count > 1 else "what is written is read back"
    if took > LATE_S:
        return [warn("readback", f"{said}, but only after {took:.0f} s", "lower the attribute cache of NFS (actimeo)")]
    return [ok("readback", said)]


def tidy(settings: Mapping[str, Any]) -> list[Finding]:
    """Removes the check's own files."""
    shutil.rmtree(place_of(settings), ignore_errors=True)
    return []


def _locks(path: Path) -> bool:
    """Whether the file was made now, as cluster.launch.run_lock makes its own."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _holds(path: Path, token: str) -> bool:
    try:
        return path.read_text() == token
    except OSError:
        return False
