"""One driver at a time in a run folder: a lock file that says who, renewed while its owner lives, taken over when not.

It works where folders are shared by several machines (NFS, Lustre): the file is created with O_EXCL, which is atomic
there, and its age is told by the file system's own clock. A driver of this machine that has gone is known at once; one
of another machine when its file has not been renewed for STALE_S.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ConfigError, TrainingError
from cluster.launch import asked
from shards.format.whole_files import write_whole
from shards.progress import say

FILE = "driver.lock"
BEAT_S = 4.0  # between renewals
STALE_S = 60.0  # longer than a file system stalls, or an NFS client trusts what it knows of a file
POLL_S = 0.5


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    user: str
    host: str
    pid: int
    since: str
    machine: str  # this boot of the host, and the container in it: where the pid means something
    started: str  # when the process began, in the kernel's ticks: another process may get its pid
    token: str

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}, since {self.since}"

    @property
    def here(self) -> bool:
        """True where this process can see whether the owner lives."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def alive(self) -> bool:
        """Of an owner that is `here`."""
        return self.started != "" and _started(self.pid) == self.started


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made where it is missing, and removed where nothing came into it.

    Raises ConfigError at once where a driver of this machine holds it, and as soon as one of another machine is seen to
    live. TrainingError where another has taken the lock meanwhile, because this process stood still for STALE_S.
    """
    path, owner = folder / FILE, _me()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(path, owner)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}): name another place with --root or IDC_HOME"
        ) from None
    end, lost = threading.Event(), threading.Event()
    thread = threading.Thread(target=_renew, args=(path, owner, end, lost), name="run lock", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise TrainingError(
                f"{folder} was taken over by {_read(path) or 'another driver'}: this one stood still for more than "
                f"{STALE_S:.0f} s and ends"
            ) from None
        raise
    finally:
        end.set()
        thread.join(BEAT_S + POLL_S)
        if _read(path) == owner:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has something in it
            folder.rmdir()


def _acquire(path: Path, owner: Owner) -> None:
    first, deadline = None, 0.0  # of a driver that cannot be looked at: its last sign, and how long to wait for another
    while not _create(path, owner):
        other, beat = _read(path), _beat(path)
        if beat is None:
            continue  # released in this moment
        if other is not None and other.here:
            if other.alive:
                raise _taken(path, other)
            return _take_over(path, other, owner, "which has ended")
        if first is None:
            first, deadline = beat, time.monotonic() + STALE_S
            say(f"{path.parent} is held by {other or 'another driver'}: waiting up to {STALE_S:.0f} s for its sign")
        if beat != first:
            raise _taken(path, other)
        if _age(path) > STALE_S or time.monotonic() > deadline:
            return _take_over(path, other, owner, f"of which nothing was heard for {STALE_S:.0f} s")
        time.sleep(POLL_S)
    return None


def _taken(path: Path, other: Owner | None) -> ConfigError:
    return ConfigError(
        f"{path.parent} is in use by {other or 'another driver'}: wait for its end, or give another --name"
    )


def _take_over(path: Path, other: Owner | None, owner: Owner, why: str) -> None:
    """Puts `owner` in the place of a driver that has gone; of several that try, one does."""
    guard = path.with_name(f"{FILE}.takeover")
    if guard.exists() and _age(guard) > STALE_S:
        guard.unlink(missing_ok=True)  # of a process that was killed between two lines of this function
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise _taken(path, None) from None
    try:
        if _read(path) != other:
            raise _taken(path, _read(path))
        write_whole(path, json.dumps(asdict(owner)) + "\n")
    finally:
        guard.unlink(missing_ok=True)
    say(f"{path.parent} is taken over from {other or 'a driver'}, {why}")


def _renew(path: Path, owner: Owner, end: threading.Event, lost: threading.Event) -> None:
    while not end.wait(BEAT_S):
        try:
            if _read(path) == owner:
                os.utime(path)
                continue
        except OSError:
            continue  # the file system does not answer: nobody else can take the lock either
        lost.set()
        asked.end_now()
        return


def _create(path: Path, owner: Owner) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "w") as file:
        file.write(json.dumps(asdict(owner)) + "\n")
    return True


def _read(path: Path) -> Owner | None:
    """Who a lock file names; None where there is none, or nothing in it yet."""
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _beat(path: Path) -> int | None:
    """When a file was last renewed; None where it is not there. Opened, so that an NFS client asks its server."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _age(path: Path) -> float:
    """Seconds since a file was renewed, by the clock of its file system."""
    probe = path.with_name(f"{FILE}.{secrets.token_hex(4)}")
    try:
        probe.touch()
        return (probe.stat().st_mtime_ns - (_beat(path) or probe.stat().st_mtime_ns)) / 1e9
    finally:
        probe.unlink(missing_ok=True)


def _me() -> Owner:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = f"user {os.getuid()}"
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    pid = os.getpid()
    return Owner(user, socket.gethostname(), pid, now, _machine(), _started(pid), secrets.token_hex(8))


def _machine() -> str:
    """Names this boot of this machine and this container's space of pids; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine began; empty where there is none, or it has ended and waits to be noticed."""
    try:
        # pid (name) state ...: the name may hold blanks and brackets; the start is the 22nd field.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]
