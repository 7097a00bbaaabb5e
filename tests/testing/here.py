"""A command run in this process: what it says and ends with, without the seconds that another one's imports take."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from shards.errors import run_main


@dataclass(frozen=True)
class Done:
    """As of subprocess.run."""

    returncode: int
    stdout: str
    stderr: str


def run_here(main: Callable[[Sequence[str]], int | None], *words: object) -> Done:
    """main(words) as a command: mistakes are a line and exit code 2."""
    given, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = [given[0], *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_main(main)
    except SystemExit as end:
        return Done(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = given


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> str:
    """What `work` writes on stderr while that is a terminal."""
    ours, theirs = os.openpty()
    with open(theirs, "w", buffering=1) as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        work()
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and all of it was read
        while some := os.read(ours, 2**16):
            shown += some
    os.close(ours)
    return shown.decode()
