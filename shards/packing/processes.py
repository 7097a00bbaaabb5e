"""Worker processes for packing: started afresh, gone with their parent, and never waited for without an end.

On one machine, for two processes are there in 0.1 s; a Ray of one's own takes 6.6 s to start and stop (2 cores).
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_handles

from shards.errors import DataError
from shards.packing.jobs import Packer, Unit
from shards.processes import pool

UNIT_TIME_LIMIT = 3600.0  # seconds in which at least one unit must be finished, or the packing is given up

_packer: Packer | None = None  # of a worker process, set once when it starts


def pack_units(packer: Packer, units: list[Unit], workers: int) -> Generator[tuple[Unit, list[dict]], None, None]:
    """(unit, manifest entries of its tars) as they are finished, in any order. One worker: in this process."""
    if workers == 1 or len(units) < 2:
        for unit in units:
            yield unit, packer.pack(unit)
        return
    try:
        with pool(min(workers, len(units)), _start_worker, (packer,)) as processes:
            waiting = {processes.submit(_pack, unit): unit for unit in units}
            while waiting:
                done, _ = wait(waiting, UNIT_TIME_LIMIT, FIRST_COMPLETED)
                if not done:
                    raise DataError(
                        f"{packer.place}: no shard was finished within {UNIT_TIME_LIMIT:g} s: does the disk hang?"
                    )
                for future in done:
                    yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError(
            f"{packer.place}: a packing worker died (out of memory?); the same command goes on; try fewer --workers"
        ) from None


def _start_worker(packer: Packer) -> None:
    global _packer
    _packer = packer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; it leaves instead."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_handles([parent.sentinel])
        os._exit(1)


def _pack(unit: Unit) -> list[dict]:
    assert _packer is not None
    return _packer.pack(unit)
