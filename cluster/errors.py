"""Errors of runs. All of them are one line that says what to do; commands print them without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from shards.errors import DataError


class ConfigError(DataError):
    """An option that is misspelt, of the wrong type or impossible; one line with the option and the fix."""


class TrainingError(RuntimeError):
    """A run failed for a reason that is not the user's input; one line, and where the traceback is."""

    exit_code = 1


class NoSpaceError(TrainingError):
    """A disk or a quota is full; one line with the place, how much to free, and what happens then."""


class Stopped(TrainingError):
    """A run was asked to stop, and did; one line that says at which step. The same command goes on."""

    exit_code = 85  # of its own, so that a scheduler can tell it from a failure and queue the command again


class HungError(TrainingError):
    """A worker was not heard of, or did nothing, for longer than the limit."""


class NotFiniteError(TrainingError):
    """Losses or gradients stopped being finite; one line that names stage, step and task."""

    exit_code = 3  # of its own, so that a sweep can tell a bad setting from a bad machine


def exit_code(work: Callable[[], object]) -> int:
    """Does the work of a command: 0, or the code of a TrainingError, whose line goes to stderr."""
    try:
        work()
    except TrainingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
