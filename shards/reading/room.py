"""How much of a machine's cache is taken, and what goes when it is full: the least recently used tar first.

A file, `room`, has the bytes that are taken and promised, under the kernel's lock for as long as it takes to read and
write that number. Only who finds no room looks through the cache, once, and remembers in which order tars may go; it
looks again when that list is used up. What a killed process left, or a person removed, counts until somebody looks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from shards.errors import Unreachable
from shards.format.whole_files import PARTIAL

STALL_LIMIT = 300.0  # seconds; a wait in which nothing moves for so long is given up
POLL = 0.05, 1.0  # seconds between looks while one waits: at first, at most
LOCK = ".lock"


class Patience:
    """Ends a wait in which nothing moved for STALL_LIMIT seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: object = None
        self._since = time.monotonic()
        self._pause = POLL[0]

    def wait(self, progress: object) -> None:
        """Sleeps for a moment; Unreachable where `progress` has been the same for too long."""
        if progress != self._seen:
            self._seen, self._since, self._pause = progress, time.monotonic(), POLL[0]
        if time.monotonic() - self._since > STALL_LIMIT:
            raise Unreachable(
                f"waited for {self._what}: nothing has moved for {STALL_LIMIT:g} s; end them and run again"
            )
        time.sleep(self._pause)
        self._pause = min(1.2 * self._pause, POLL[1])


@contextmanager
def locked(path: Path, what: str, watched: Path | None = None) -> Iterator[int]:
    """Holds a lock file against other threads and processes, while they `what`; `watched` changes as they go on."""
    # Lock files stay: were they removed, two processes could hold a lock of the same name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    patience = Patience(f"another process to {what} (fuser {path} tells which)")
    try:
        while not _try_lock(descriptor):
            found = stat_of(watched) if watched else None
            patience.wait(found and (found.st_mtime_ns, found.st_size))
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile has the descriptor too
        os.close(descriptor)


class Room:
    """The room that tars may take below `root`, all processes of the machine together: `limit` bytes.

    Cheap to pickle. Safe under threads and processes.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root, self._limit = root, limit
        self._looked = False  # at the cache itself, not at what others wrote down
        self._oldest: deque[tuple[int, int, Path]] = deque()  # tars in the order in which they may go

    def __reduce__(self) -> tuple:
        return Room, (self._root, self._limit)

    @contextmanager
    def reserved(self, partial: Path, need: int) -> Iterator[BinaryIO]:
        """Room for a tar, and the file `partial` of `need` bytes to fetch it into, open; if that file is still there
        at the end, it goes, and its room is free again.

        Raises OSError where the disk is full, Unreachable where others take all the room and do not move.
        """
        patience = Patience(f"other processes to fetch their shards into {self._root}, which leaves no room for mine")
        while not self._try(partial, need):
            patience.wait(self._coming())
        try:
            with open(partial, "r+b") as file:
                if need:  # a full disk shows now; without the lock, for it can take long
                    os.posix_fallocate(file.fileno(), 0, need)
                yield file
        finally:
            if partial.exists():
                with self._counted() as descriptor:
                    partial.unlink()
                    _write(descriptor, max(0, (_read(descriptor) or 0) - need))

    def _try(self, partial: Path, need: int) -> bool:
        with self._counted() as descriptor:
            used = _read(descriptor)
            if used is None or not self._looked:
                used = self._look()
            used = self._evict(used, need)
            if used + need > self._limit:
                used = self._evict(self._look(), need)
            fits = used + need <= self._limit
            _write(descriptor, used + need * fits)
            if fits:
                with open(partial, "wb") as file:
                    file.truncate(need)  # whoever looks counts it
            return fits

    def _counted(self) -> AbstractContextManager[int]:
        """The lock of the count; its file changes whenever somebody had it."""
        path = self._root / f"room{LOCK}"
        return locked(path, f"make room in {self._root}", watched=path)

    def _evict(self, used: int, need: int) -> int:
        """Removes tars until `need` bytes fit or none is known any more; what is taken then."""
        while used + need > self._limit and self._oldest:
            noted, size, path = self._oldest.popleft()
            found = stat_of(path)
            if found is not None and found.st_mtime_ns == noted:  # else it was used since, or others removed it
                path.unlink(missing_ok=True)
                used -= size
        return used

    def _look(self) -> int:
        """Goes through the cache: what is taken, and the order in which tars may go. Clears what was left behind."""
        used, tars, self._looked = 0, [], True
        for path, found in self._files(f".tar{PARTIAL}"):
            if _is_free(path.with_name(path.name.removesuffix(PARTIAL) + LOCK)):
                path.unlink(missing_ok=True)  # of a process that was killed
            else:
                used += found.st_size
        for path, found in self._files(".tar"):
            used += found.st_size
            tars.append((found.st_mtime_ns, found.st_size, path))
        self._oldest = deque(sorted(tars))
        return used

    def _coming(self) -> list[int]:
        """What changes as others fetch."""
        return sorted(found.st_mtime_ns for _, found in self._files(f".tar{PARTIAL}"))

    def _files(self, ending: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._root.glob(f"*/*{ending}"):
            if (found := stat_of(path)) is not None:
                yield path, found


def stat_of(path: Path) -> os.stat_result | None:
    """What is known of a file; None where there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _read(descriptor: int) -> int | None:
    """The count in its lock file; None in a new one, or one of another form."""
    text = os.pread(descriptor, 32, 0)
    return int(text) if text.isdigit() else None


def _write(descriptor: int, count: int) -> None:
    os.pwrite(descriptor, b"%020d" % count, 0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)
