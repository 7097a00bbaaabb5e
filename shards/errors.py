"""Errors that a user can mend, and how commands report them: one line on stderr, no traceback."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

USER_ERROR = 2
INTERRUPTED = 130


class DataError(ValueError):
    """Something about the data or the options is wrong; the message is one line with the file or option and the fix."""


class Unreachable(DataError):
    """A store did not answer, or a cache has no room. It says nothing about the data: no sample is given up for it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises DataError with one line and, for a misspelt option, the nearest right name."""

    def error(self, message: str) -> NoReturn:
        unknown = re.findall(r"--[\w-]+", message) if message.startswith("unrecognized arguments") else []
        known = [option for action in self._actions for option in action.option_strings]
        for option in unknown:
            near = difflib.get_close_matches(option, known, n=1)
            if near:
                message += f"; did you mean {near[0]}?"
        raise DataError(f"{message} (see python -m {self.prog} --help)")


def shown(value: object) -> str:
    """A value of a file in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def same_command() -> str:
    """The command of this process as one would type it again."""
    program, *words = sys.orig_argv
    return shlex.join([os.path.relpath(program) if program.startswith(os.getcwd() + os.sep) else program, *words])


def run_main(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a command's main(arguments) and exits with its code; a DataError becomes one line on stderr and exit 2."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except DataError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        code = USER_ERROR
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing is left to say, nor to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "the folder that was being written"
        print(f"no space left on device: {where}; free some, and run the same command again", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"interrupted; to go on: {same_command()}", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code or 0)
