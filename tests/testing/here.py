"""A command run in this process: what it says and ends with, without the seconds that another one's imports take."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
