"""Worker processes on one machine: spawned, deaf to Ctrl-C, and gone as soon as nobody waits for them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any


class _Deaf(SpawnProcess):
    """Never hears Ctrl-C, not even while it imports: it is its parent's."""

    def start(self) -> None:
        """Starts it, with a mask that it keeps."""
        resource_tracker.ensure_running()  # its own start takes SIGINT out of the mask
        heard: list[int] = []
        # Another thread may take the signal: it would interrupt this one while it hands the new process its work.
        main = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number)) if main else None
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if main:
                signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


class _Context(SpawnContext):
    Process = _Deaf


@contextlib.contextmanager
def pool(
    workers: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """So many processes, whose `initializer(*initargs)` runs first. What they still do at the end is given up.

    Spawned, not forked: a fork of a process with threads (Ray's, BLAS's) can deadlock.
    """
    made = ProcessPoolExecutor(workers, _Context(), initializer, initargs)
    try:
        yield made
    finally:
        processes = list((made._processes or {}).values())  # no public way to end them before Python 3.14
        made.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(10)
