"""A run that is asked to stop, by Ctrl-C, SIGTERM or SIGUSR1 at the driver: a file in the run folder until it has.

Ray Train's controller, which runs in the driver, sees the file and asks the workers. They stop after the same
step with a checkpoint, and the driver ends with exit code 85. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import Stopped
from shards.errors import same_command

FILE = ".stop"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class _Driver:
    listens = False
    run: Path | None = None  # while workers are at work
    interrupted = False  # by a Ctrl-C in that time


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Meanwhile the signals are an ask to stop. For the main thread of a driver."""
    before = [signal.getsignal(number) for number in SIGNALS]
    _Driver.listens = True
    _listen()
    try:
        yield
    finally:
        _Driver.listens = False
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def listen_again() -> None:
    """After something of Ray's: it takes SIGTERM for itself when it starts, and leaves it to end the process after."""
    if _Driver.listens:
        _listen()


def _listen() -> None:
    for number in SIGNALS:
        signal.signal(number, _heard)


@contextlib.contextmanager
def heeded(run: Path) -> Iterator[None]:
    """While workers are at work an ask waits until they have stopped; at other times it ends the driver at once."""
    (run / FILE).unlink(missing_ok=True)  # of a driver that was killed
    _Driver.run, _Driver.interrupted = run, False
    listen_again()
    try:
        yield
    finally:
        _Driver.run = None
        (run / FILE).unlink(missing_ok=True)


def is_asked(run: Path) -> bool:
    """True if the driver of a run has been asked to stop."""
    return (run / FILE).exists()


def end_now() -> None:
    """Interrupts the main thread of this driver, whatever it is at, from another thread."""
    _Driver.run = None
    os.kill(os.getpid(), signal.SIGINT)


def _heard(number: int, frame: Any) -> None:
    interrupts = number == signal.SIGINT
    # Not by the file: a SIGTERM that comes with the Ctrl-C may be heard while this runs, and make it.
    again, _Driver.interrupted = interrupts and _Driver.interrupted, interrupts or _Driver.interrupted
    if _Driver.run is not None and not again:
        (_Driver.run / FILE).touch()
        if interrupts:
            _write(f"stopping with a checkpoint; Ctrl-C again ends at once. To go on: {same_command()}")
        return
    if interrupts:
        raise KeyboardInterrupt
    _write("stopped as asked, no step was under way; the same command goes on")
    raise SystemExit(Stopped.exit_code)


def _write(line: str) -> None:
    # Not by print: the main thread may be in the middle of one.
    start = "\n" if sys.stderr.isatty() else ""  # below what is being rewritten there, and ^C
    os.write(sys.stderr.fileno(), f"{start}{line}\n".encode())
