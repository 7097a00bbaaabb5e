"""Files that are there whole or not at all, after a power cut too: the data first, then the name, then the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

PARTIAL = ".partial"  # ending of files being written; a finished name is never half-written


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all; text in UTF-8."""
    partial = path.with_name(path.name + PARTIAL)
    with open(partial, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        sync(file)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync(file: IO[bytes]) -> None:
    """Returns once the disk has what was written into an open file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Returns once the disk has the names of a folder: what was moved into it, and what was removed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such request
            raise
    finally:
        os.close(descriptor)
