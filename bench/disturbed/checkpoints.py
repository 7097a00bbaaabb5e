"""Checkpoints that are half-written, damaged, without room, or written by a process that is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.disturbed.compare import Bench, Found
from bench.disturbed.run import EVERY
from bench.disturbed.saving import kill_while_it_saves
from cluster.training import checkpoint
from shards.format.whole_files import PARTIAL

DISK_MIB = 32
KILLS = 50


def half(bench: Bench) -> Found:
    """kill -9 of the driver, which leaves the next two checkpoints half-written, and the same command again"""
    run = bench.run("half")
    run.wait(lambda: run.reached() >= 45)
    run.kill()
    newest = run.newest()
    for number, ending in ((1, PARTIAL), (2, "")):
        left = newest.folder.with_name(f"step_{newest.commit.step + number * EVERY:08d}{ending}")
        shutil.copytree(newest.folder, left, dirs_exist_ok=True)
        (left / checkpoint.COMMIT).unlink()
        next(left.glob("optimizer-*")).unlink()
    repeated, again = bench.again(run)
    run.end()
    return Found("half", None, again, repeated, bench.equal(run))


def byte(bench: Bench) -> Found:
    """a byte flipped in the newest checkpoint, in each kind of file in turn, and the same command again"""
    said, equal, repeated = [], True, 0
    for kind in ("weights", "optimizer", "COMMIT"):
        run = bench.run(f"byte-{kind}", "--finetune.keep", "9")
        run.wait(lambda run=run: run.reached() >= 45)
        run.kill()
        path = next(run.newest().folder.glob(f"{kind}*"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        before = run.reached()
        run.start()
        run.end()
        named = f"{path.parent.name} is left out" in run.said()
        said.append(f"{path.name} {'named' if named else 'NOT named'}")
        equal = equal and named and bench.equal(run)
        repeated = max(repeated, before - int(path.parent.name.removeprefix("step_")) + EVERY)
    return Found("byte", None, None, repeated, equal, "; ".join(said))


def full(bench: Bench) -> Found:
    """a disk that is full while a checkpoint is written, and the same command again once there is room"""
    folder = bench.root / "runs" / "full"
    folder.mkdir(parents=True, exist_ok=True)
    # In the bench's own namespace of mounts: nobody else sees it, and it goes with the bench.
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True, timeout=30)
    try:
        return _filled(bench, folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)


def _filled(bench: Bench, folder: Path) -> Found:
    run = bench.run("full")
    run.wait(lambda: run.reached() >= 45)
    size = sum(file.size for file in run.newest().commit.files.values())
    room = os.statvfs(folder)
    filler, since = folder / "filler", time.time()
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - size // 2)
    run.end(1)
    noticed, said = time.time() - since, run.last_line()
    filler.unlink()
    repeated, again = bench.again(run)
    run.end()
    return Found("full", noticed, again, repeated, bench.equal(run) and "no space left on device" in said, said)


def writing(bench: Bench) -> Found:
    """kill -9 at 50 random moments of processes that train and write a checkpoint after each step"""
    inside, steps, equal = kill_while_it_saves(bench.root / "writing", KILLS)
    said = f"{KILLS} kills within {steps} steps, {inside} of them while a checkpoint was being written"
    return Found("writing", None, None, None, equal, said)
