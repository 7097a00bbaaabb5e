"""Packings that are killed: as processes of their own, or as forks of the test that start at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240.0  # seconds; generous: the machine may be busy

_SCRIPT = """
import sys
from testing.tiny_source import TinySource
from shards.pack import pack
if __name__ == "__main__":
    pack(TinySource(seconds=float(sys.argv[2])), sys.argv[1], workers=2, address=sys.argv[3] or None)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def start_packing(folder: Path, out: Path, seconds: float, address: str = "") -> subprocess.Popen:
    """A process, with a session of its own, that packs with two workers; an image takes `seconds`."""
    (folder / "run.py").write_text(_SCRIPT)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])])
    with open(folder / "run.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, folder / "run.py", out, str(seconds), address],
            env=os.environ | {"PYTHONPATH": path},
            stderr=log,
            start_new_session=True,
        )


def kill(process: subprocess.Popen) -> None:
    """kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait(60)


def wait_for(what: Callable[[], object], process: subprocess.Popen) -> None:
    """Until what() is true while the process runs."""
    until = time.monotonic() + LIMIT
    while not what():
        assert process.poll() is None, "the packing ended before it could be killed"
        assert time.monotonic() < until, f"not within {LIMIT:g} s"
        time.sleep(0.02)


def in_fork(packing: Callable[[], object], seconds: float | None) -> bool:
    """Runs packing() in a fork that is killed after so many seconds, None: kills itself. Whether it was killed."""
    child = os.fork()
    if not child:
        try:
            packing()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    until = time.monotonic() + LIMIT
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return os.WIFSIGNALED(ended[1])


def kill_often(packing: Callable[[Any], object], places: Iterator[Any], seconds: float, times: int, seed: int) -> Any:
    """The place into which packing(place) was killed so many times, each after a random time up to `seconds`.

    A packing that is quicker than its killer does not count: then it begins anew at the next place, for less long.
    """
    chance = random.Random(seed)
    place, killed = next(places), 0
    while killed < times:
        if in_fork(partial(packing, place), chance.uniform(0, seconds)):
            killed += 1
        else:
            place, killed, seconds = next(places), 0, 0.7 * seconds
    return place
