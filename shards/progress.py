"""A progress bar with the time that is left; in a log, a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where stderr is no terminal


class Progress:
    """Counts units on stderr. `done` of `total` were there at the start: they say nothing about the speed."""

    def __init__(self, what: str, done: int, total: int, unit: str = "sample") -> None:
        self._what, self._unit = what, unit
        self._initial, self._done, self._total = done, done, total
        self._started = self._printed = time.monotonic()
        # They come by the tar, a few at a time: only the mean speed since the start foretells anything.
        options = {"desc": what, "initial": done, "total": total, "unit": unit, "smoothing": 0, "miniters": 1}
        self._bar = tqdm(**options) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done > self._initial:
            self._print(time.monotonic())

    def update(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._printed >= LINE_EVERY and self._done < self._total:
            self._print(now)

    def _print(self, now: float) -> None:
        self._printed = now
        speed = (self._done - self._initial) / max(now - self._started, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / speed)
        print(
            f"{self._what}: {self._done} of {self._total} {self._unit}s, {speed:.3g} a second, {left} left",
            file=sys.stderr,
            flush=True,
        )
