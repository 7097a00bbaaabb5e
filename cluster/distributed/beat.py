"""How far this worker's process is, for those who watch over it; and whether it has been asked to stop.

The training thread writes. The main thread of the worker's actor answers: it is free while a step runs, and does not
answer if the whole process stands still.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Beat:
    """Where a worker is; plain values, so that it pickles."""

    stage: str  # the training stage whose steps are under way, from its first step on; empty: none
    step: int  # steps of that stage that are done
    idle_s: float  # since something was last done
    ended: bool  # its work is over

    @property
    def place(self) -> tuple[str, int] | None:
        """Stage and step that have been reached; None if no step is under way."""
        return (self.stage, self.step) if self.stage else None


class _Now:
    stage, step, ended, asked = "", 0, False, ""
    at = time.monotonic()


def stepped(stage: str, step: int) -> None:
    """So many steps of a stage are done."""
    _Now.stage, _Now.step, _Now.at = stage, step, time.monotonic()


def went_on() -> None:
    """A part of what is no step has been done: captions of some pairs, say."""
    _Now.at = time.monotonic()


def left_stage() -> None:
    """From now on no step is under way, and nothing is lost if this process ends."""
    _Now.stage, _Now.at = "", time.monotonic()


def end() -> None:
    """This worker's work is over, well or not."""
    _Now.ended = True


def read() -> Beat:
    """Where this worker is."""
    return Beat(_Now.stage, _Now.step, time.monotonic() - _Now.at, _Now.ended)


def ask_to_stop(why: str) -> Beat:
    """From now on `asked` is `why`. Where this worker is: it stops by itself if the steps of a stage are under way."""
    _Now.asked = why
    return read()


def asked() -> str:
    """Why this worker has been asked to stop; empty: it has not."""
    return _Now.asked


def keep_stacks(why: str) -> None:
    """Writes where every thread of this process stands into the log of its rank."""
    print(f"--- where all threads of this process stand, because {why}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=2, all_threads=True)
