"""A full disk, told as what it is: torch and safetensors say it each in their own words, or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import NoSpaceError

FULL = (errno.ENOSPC, errno.EDQUOT)
# Of libraries that keep the system's words and lose its number.
_SAYINGS = tuple(text for code in FULL for text in (os.strerror(code), f"os error {code}"))
# torch's writer of files in C++ says that it failed and never why.
_WRITER = "inline_container.cc"


def no_space(error: BaseException, place: Path, needed: int = 0, go_on: str = "") -> NoSpaceError | None:
    """The error to raise in place of `error` where it comes of a full disk or quota; None where it does not.

    place: the folder that was being written to; needed: bytes that it takes, 0: not known; go_on: what happens after.
    """
    for one in _chain(error):
        system = isinstance(one, OSError) and one.errno in FULL
        if (
            system
            or any(saying in str(one) for saying in _SAYINGS)
            or (_WRITER in str(one) and _is_full(place, needed))
        ):
            path = one.filename if isinstance(one, OSError) and one.filename else place
            return NoSpaceError(f"no space left on device: {path}; {_how_much(place, needed)}{go_on}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full(place: Path, needed: int) -> bool:
    """Whether a file of that size cannot be written there."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            os.posix_fallocate(file.fileno(), 0, max(needed, 2**20))
    except OSError as error:
        return error.errno in FULL
    return False


def _how_much(place: Path, needed: int) -> str:
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    if needed <= free:  # not known, or a quota that statvfs does not tell
        return f"free some ({_mebibytes(free)} are free now)"
    return (
        f"free {_mebibytes(needed - free)} (a checkpoint takes {_mebibytes(needed)}, and {_mebibytes(free)} are free)"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
