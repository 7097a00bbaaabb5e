"""python -m tune.trials.run PARENT ARGUMENTS...: cluster/train.py, ended by the kernel when the process PARENT dies.

A trial that Ray kills, or whose machine is taken away, must not train on. Linux alone has this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from cluster.train import main
from shards.errors import run_main

PR_SET_PDEATHSIG = 1


def tie_to(parent: int) -> None:
    """This process gets SIGKILL when its parent ends, and at once where that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    tie_to(int(sys.argv.pop(1)))
    run_main(main)
