"""One process at a time makes a feature folder: its mark says of what it is being made, and is locked while it is.

The lock is the kernel's (flock; on NFS the server's), so a process that is killed holds none. On a file system without
locks two processes may make the same: each writes in a folder of its own, and what they write is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from shards.errors import DataError
from shards.format import index, manifest
from shards.format.tars import file_sha256
from shards.format.whole_files import PARTIAL

MARK = "features.json" + PARTIAL
SCRATCH = "unit-"  # folders that tars are written in
STALL_S = 3600.0  # nothing new from who makes the folder for so long ends the wait; a group of tars takes minutes
POLL_S = 0.5


@contextmanager
def held(out: Path, description: dict) -> Iterator[None]:
    """Holds the folder `out`, to be made of `description`; another process that holds it is waited for.

    DataError where it holds anything else, or where nothing moves in it any more.
    """
    out.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in out.iterdir()}
    if there and not there & {MARK, manifest.FILE}:
        raise DataError(f"{out} is not empty and holds no features; name another folder with --out")
    mark, alone = _wait_for_lock(out)
    with mark:
        mark.seek(0)
        text = mark.read()
        if text:
            require_same(_parse(text), description, out)
            if alone:
                _clear(out)
        else:
            mark.write(json.dumps(description).encode())
            mark.flush()
        yield
        if (out / manifest.FILE).exists():
            (out / MARK).unlink(missing_ok=True)


def require_same(earlier: dict | None, wanted: dict, out: Path) -> None:
    """DataError where features are made of something else."""
    # bf16 where the machine computes with it: a folder begun on one machine is finished and read on any other.
    differing = sorted(key for key in wanted if key != "precision" and (earlier or {}).get(key) != wanted[key])
    if differing:
        raise DataError(
            f"{out} holds features that differ in {', '.join(differing)}; delete it, or name another folder with --out"
        )


def _wait_for_lock(out: Path) -> tuple[BinaryIO, bool]:
    """(the mark, open and locked, made where there is none; False on a file system without locks)."""
    seen, since, told = None, time.monotonic(), False
    while True:
        mark = open(out / MARK, "a+b")
        locked = _try_lock(mark)
        if locked is not False:
            if _is(mark, out / MARK):
                return mark, bool(locked)
            mark.close()  # of a folder that was finished in this moment
            continue
        mark.close()
        if not told:
            print(f"{out} is being made by another process: it is waited for", file=sys.stderr, flush=True)
            told = True
        moves = _sizes(out)
        if moves != seen:
            seen, since = moves, time.monotonic()
        if time.monotonic() - since > STALL_S:
            raise DataError(
                f"{out} is being made by another process, and nothing in it has changed for {STALL_S:.0f} s: end that "
                f"process (fuser {out / MARK} tells which) and run again"
            )
        time.sleep(POLL_S)


def _sizes(out: Path) -> dict[str, int]:
    """Of all files in a folder that others write into meanwhile."""
    found = {}
    for path in out.rglob("*"):
        with suppress(FileNotFoundError):
            found[str(path)] = path.stat().st_size
    return found


def _try_lock(mark: BinaryIO) -> bool | None:
    """Whether the lock was free; None where there are no locks."""
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _parse(text: bytes) -> dict | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _clear(out: Path) -> None:
    """Removes what a process that was killed has half written."""
    for path in out.iterdir():
        if path.name.startswith(SCRATCH):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(PARTIAL) and path.name != MARK:
            path.unlink(missing_ok=True)


def require_room(out: Path, images: int, cells: int, dim: int) -> None:
    """DataError where features of so many images do not fit on the disk."""
    needed, free = images * cells * dim * 2, shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out}: features of {images:,} images take {needed / 1e9:,.1f} GB ({cells} cells of {dim} float16 numbers "
            f"each) and {free / 1e9:,.1f} GB are free: make room, or take a smaller size or fewer strides of the "
            f"backbone"
        )


def finished_entry(out: Path, shard: dict) -> dict | None:
    """The manifest entry of a feature tar that an earlier run finished, or None. Only whole tars have their names."""
    path = out / shard["name"]
    if not path.exists():
        return None
    return {
        "name": shard["name"],
        "kind": shard["kind"],
        "split": shard["split"],
        "samples": shard["samples"],
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "index_sha256": file_sha256(index.path_of(path)),
    }
