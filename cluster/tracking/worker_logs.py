"""What a worker's process says, its native code too: kept in the run folder, a file a rank."""

from __future__ import annotations

import datetime
import logging
import os
import re
import socket
import sys
from pathlib import Path

FOLDER, WARNINGS = "logs", "warnings.txt"


def log_of(run: Path, rank: int) -> Path:
    """Where the output of a rank is kept."""
    return run / FOLDER / f"rank_{rank}.log"


def keep_output(run: Path, rank: int, device: object) -> None:
    """From now on, standard output and error of this process go to the log of its rank, behind a line that says whose.

    By file descriptors: NCCL, CUDA and the C++ of torch know nothing of sys.stderr.
    """
    path = log_of(run, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    # Python's own streams may lead elsewhere in a worker of Ray's.
    sys.stdout, sys.stderr = (
        os.fdopen(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False) for descriptor in (1, 2)
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    print(f"--- {now} rank {rank} on {socket.gethostname()}, process {os.getpid()}, {device}", flush=True)


def keep_warnings(run: Path, rank: int) -> None:
    """From now on, warnings that are logged in this process are lines of the run's warnings.txt too."""
    handler = logging.FileHandler(run / WARNINGS, delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s worker {rank} %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)


def own_warning(line: str) -> str | None:
    """What a line of warnings.txt says, if it is of our own code and not of a library."""
    found = re.fullmatch(r"\S+ \S+ worker \d+ (?:cluster|shards)\.\S+: (.+)", line)
    return found and found[1]
