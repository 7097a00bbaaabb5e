"""Work ahead of the training loop: fetches on threads, hands over in order."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from shards.errors import DataError

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over fetch(position) for each of `positions`, in their order, computed ahead by a few threads.

    Reading, checksums and JPEG decoding release Python's lock, so threads run truly beside the training loop, and the
    trouble of forked loader processes does not arise. At most `depth` results wait or are being made at any time.
    An exception of fetch is raised where its result would have come; iteration may go on after it.
    Waiting longer than `time_limit` seconds for one result raises DataError. Use as a context manager, or call close().
    """

    def __init__(
        self,
        fetch: Callable[[int], T],
        positions: Iterable[int],
        threads: int = 2,
        depth: int = 8,
        time_limit: float = 600.0,
    ) -> None:
        if threads < 1 or depth < 1:
            raise DataError(f"a prefetcher needs at least 1 thread and a depth of 1, not {threads} and {depth}")
        self._positions = iter(positions)
        self._depth = depth
        self._time_limit = time_limit
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._ahead: deque[tuple[int, Future]] = deque()
        self._closed = False
        # Daemons: a read that hangs in the kernel must not keep a finished program alive.
        self._threads = [
            threading.Thread(target=_work, args=(fetch, self._tasks), name=f"prefetch-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise DataError("the prefetcher is closed")
        while len(self._ahead) < self._depth:
            try:
                position = next(self._positions)
            except StopIteration:
                break
            future: Future = Future()
            self._ahead.append((position, future))
            self._tasks.put((position, future))
        if not self._ahead:
            raise StopIteration
        position, future = self._ahead.popleft()
        started = time.monotonic()
        try:
            return future.result(self._time_limit)
        except TimeoutError:
            if future.done() and time.monotonic() - started < self._time_limit:
                raise  # fetch itself raised a TimeoutError
            raise DataError(
                f"sample {position} was not read within {self._time_limit:g} s: does the file system hang?"
            ) from None

    def close(self) -> None:
        """Drops what waits and joins the threads; one that hangs past the time limit is left behind with a warning."""
        if self._closed:
            return
        self._closed = True
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + self._time_limit
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logging.getLogger(__name__).warning("a prefetch thread still hangs in a read and is left behind")

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(fetch: Callable[[int], T], tasks: queue.SimpleQueue) -> None:
    """A thread's life. It holds no reference to the prefetcher; None ends it."""
    while (task := tasks.get()) is not None:
        position, future = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(fetch(position))
        except BaseException as error:  # carried to the reader, who raises it in order
            future.set_exception(error)
