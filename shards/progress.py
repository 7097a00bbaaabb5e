"""How far something is, on stderr: one line that is rewritten in a terminal; in a log, a line now and then."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from tqdm import tqdm

LINE_EVERY = 15.0  # seconds between lines where stderr is no terminal
REDRAWN_S = 0.5  # seconds between two drawings of a line that has no count
COLOUR = "#4c8dff"

tqdm.set_lock(threading.RLock())  # its own is one of several processes, and starts another one to watch over it


def say(text: str, out: TextIO | None = None) -> None:
    """A line for the person who waits; one that is being rewritten stays below it."""
    out = out or sys.stderr
    with tqdm.external_write_mode(out) if out.isatty() else contextlib.nullcontext():
        print(text, file=out, flush=True)


def has_colour(out: TextIO) -> bool:
    """True for a terminal whose owner has not set NO_COLOR."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bar(what: str, done: int, total: int, unit: str, out: TextIO | None = None, stays: bool = True) -> tqdm | None:
    """The line of something with a count, in a terminal; None elsewhere. stays: it is there when it is closed."""
    out = out or sys.stderr
    if not out.isatty():
        return None
    # They come by the tar, a few at a time: only the mean speed since the start foretells anything.
    return tqdm(
        desc=what, initial=done, total=total, unit=unit, smoothing=0, miniters=1, file=out, leave=stays,
        colour=COLOUR if has_colour(out) else None, **_width(out),
    )  # fmt: skip


def _width(out: TextIO) -> dict[str, Any]:
    """How wide tqdm draws: as the terminal is, also after it was resized; some say that they have no columns."""
    return {"dynamic_ncols": True} if os.get_terminal_size(out.fileno()).columns else {"ncols": 80, "nrows": 24}


class Progress:
    """Counts units on stderr. `done` of `total` were there at the start: they say nothing about the speed."""

    def __init__(self, what: str, done: int, total: int, unit: str = "sample") -> None:
        self._what, self._unit = what, unit
        self._initial, self._done, self._total = done, done, total
        self._started = self._printed = time.monotonic()
        self._bar = bar(what, done, total, unit)

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

    def reach(self, done: int, total: int) -> None:
        """So many are done, of as many as are known of by now."""
        if total != self._total:
            self._total = total
            if self._bar is not None:
                self._bar.total = total
        self.update(done - self._done)

    def _print(self, now: float) -> None:
        self._printed = now
        say(line(self._what, self._initial, self._done, self._total, self._unit, now - self._started))


def line(what: str, initial: int, done: int, total: int, unit: str, seconds: float) -> str:
    """How far something is, for a log: `initial` were done `seconds` ago."""
    speed = (done - initial) / max(seconds, 1e-9)
    left = f", {tqdm.format_interval((total - done) / speed)} left" if speed else ""
    return f"{what}: {done} of {total} {unit}s, {speed:.3g} a second{left}"


@contextlib.contextmanager
def busy(what: str, announced: bool = True) -> Iterator[None]:
    """Something without a count: how long it has taken so far. announced: a log has a line when it begins, too."""
    over, terminal = threading.Event(), sys.stderr.isatty()
    shown = None
    if terminal:
        out = sys.stderr
        shown = tqdm(desc=what, bar_format="{desc}: {elapsed}", file=out, leave=announced, **_width(out))
    elif announced:
        say(what)

    def tell() -> None:
        started = time.monotonic()
        while not over.wait(REDRAWN_S if terminal else LINE_EVERY):
            if shown is not None:
                shown.refresh()
            else:
                say(f"{what}: {tqdm.format_interval(time.monotonic() - started)} so far")

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if shown is not None:
            shown.close()
