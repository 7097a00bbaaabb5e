"""Reads that outlast a file system which fails for a moment: a server that restarts, a stale handle, a timeout."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from shards.errors import Unreachable

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds between attempts
# What is so because of the file, and stays so. All else (EIO, ESTALE, ETIMEDOUT, EMFILE) says nothing about the file.
_OF_THE_FILE = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
    errno.ENXIO, errno.ENODEV, errno.EBADF,
}  # fmt: skip


def retried(read: Callable[[], T], what: object) -> T:
    """read(), again after each of PAUSES as long as the system is at fault.

    An OSError that is about the file itself is raised at once. Raises Unreachable, one line that begins with `what`,
    the file's name, where the fault stays.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except OSError as error:
            if error.errno in _OF_THE_FILE:
                raise
            if pause is None:
                raise Unreachable(
                    f"{what} cannot be read ({error.strerror or error}), {len(PAUSES) + 1} times in {sum(PAUSES):g} s: "
                    f"look at its disk or file system; the same command then goes on"
                ) from None
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
