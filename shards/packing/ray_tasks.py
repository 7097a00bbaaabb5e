"""Packing on a Ray cluster: one task a unit, units of lost workers again, nothing waited for without an end."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import secrets
import socket
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shards.errors import DataError, Unreachable
from shards.packing.jobs import Packer, Unit
from shards.packing.processes import UNIT_TIME_LIMIT

ATTEMPTS = 3  # of one unit, where its worker dies
CONNECT_TIME_LIMIT = 10.0  # seconds until an address must answer; Ray itself takes two minutes
GET_TIME_LIMIT = 300.0  # seconds in which a worker must have received the source
OBJECT_STORE_BYTES = 128 * 2**20  # of a Ray of our own: no images go through it

_jobs: dict[str, Job] = {}  # of a worker process: the job it has received and checked


@dataclass(frozen=True)
class Job:
    """What a worker process receives once: the packer, and an image with the SHA-256 that it must have there too."""

    packer: Packer
    image: str
    sha256: str


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """A connection to the Ray cluster at an address as ray.init takes it: auto, HOST:PORT, or local, a Ray of our own.

    `workers` is how many CPUs the latter has, None: all. DataError where there is no cluster, or none with a CPU.
    """
    port = address.rpartition(":")[2]
    if port.isdecimal():
        host = address.removeprefix("ray://").rpartition(":")[0]
        try:
            socket.create_connection((host, int(port)), CONNECT_TIME_LIMIT).close()
        except (OSError, OverflowError) as error:
            raise DataError(f"--address {address}: nothing answers there ({error}): is the Ray head running?") from None
    options: dict[str, Any] = {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        # A token of its own: the first local Ray of a user otherwise writes one that their other clusters then ask for.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets anything else on the machine go first
        cpus = workers or len(os.sched_getaffinity(0))
        options |= {"num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    import ray  # it reads the environment when it is imported

    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, SystemExit, ray.exceptions.RayError) as error:
        raise DataError(f"--address {address}: no connection to a Ray cluster ({_first_line(error)})") from None
    try:
        if ray.cluster_resources().get("CPU", 0) < 1:
            raise DataError(f"--address {address}: the Ray cluster has no CPU to pack with; add a node")
        yield
    finally:
        ray.shutdown()


def pack_units_on_ray(
    packer: Packer, units: list[Unit], workers: int | None
) -> Generator[tuple[Unit, list[dict]], None, None]:
    """(unit, manifest entries of its tars) as they are finished, in any order, on the cluster this is connected to.

    At most `workers` units at a time; None: as many as the cluster has CPUs. A unit whose worker dies is packed again,
    ATTEMPTS times in all.
    """
    if not units:
        return
    import ray

    task = ray.remote(num_cpus=1, max_retries=0)(_pack)  # we count the attempts: Ray repeats some without end
    job = ray.put(_make_job(packer, units))
    limit = workers or int(ray.cluster_resources()["CPU"])
    todo = [(unit, 1) for unit in reversed(units)]
    running: dict[Any, tuple[Unit, int]] = {}
    try:
        while todo or running:
            while todo and len(running) < limit:
                unit, attempt = todo.pop()
                running[task.remote([job], unit)] = unit, attempt
            done, _ = ray.wait(list(running), timeout=UNIT_TIME_LIMIT)
            if not done:
                raise DataError(
                    f"{packer.place}: no shard was finished within {UNIT_TIME_LIMIT:g} s: has the Ray cluster a free "
                    f"CPU, does the disk hang?"
                )
            unit, attempt = running.pop(done[0])
            entries = _result(done[0], unit, attempt, packer)
            if entries is None:
                todo.append((unit, attempt + 1))
            else:
                yield unit, entries
    finally:
        for waiting in running:
            ray.cancel(waiting, force=True)


def _result(reference: Any, unit: Unit, attempt: int, packer: Packer) -> list[dict] | None:
    """The entries of a task that has ended; None where its worker died and it is to be tried again."""
    from ray import exceptions, get

    try:
        return get(reference, timeout=GET_TIME_LIMIT)
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, (DataError, OSError)):
            raise error.cause from None
        if "failed to import" in str(error.cause):
            raise DataError(
                f"a worker of the Ray cluster cannot import shards ({_first_line(error.cause)}): install this project "
                f"on every node, or use ray job submit --working-dir ."
            ) from None
        raise
    except exceptions.RayError as error:  # a worker or a node that has gone
        name = unit.shards[0].name
        if attempt == ATTEMPTS:
            raise DataError(
                f"{packer.place}: the worker that packed {name} died {ATTEMPTS} times ({_first_line(error)}): out of "
                f"memory? The same command goes on; try fewer --workers"
            ) from None
        print(f"the worker that packed {name} died, it is packed again", file=sys.stderr, flush=True)
        return None


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _make_job(packer: Packer, units: list[Unit]) -> Job:
    """The job, with the first image that can be read."""
    images = (image for unit in units for shard in unit.shards for sample in shard.samples for image in
              sample.images.values())  # fmt: skip
    first = next(images)
    for image in (first, *(next(images, first) for _ in range(20))):
        sha256 = _checksum(packer, image)
        if sha256:
            break
    return Job(packer, image, sha256)


def _checksum(packer: Packer, image: str) -> str:
    """SHA-256 of an image as it is packed here; empty where it cannot be."""
    try:
        return hashlib.sha256(packer.image(image)[1]).hexdigest()
    except Unreachable:
        raise
    except DataError:
        return ""


def _pack(job: list[Any], unit: Unit) -> list[dict]:
    """In a worker of Ray's. The reference comes in a list, for Ray would load the source anew for every unit."""
    import ray

    key = job[0].hex()
    try:
        if key not in _jobs:
            received = ray.get(job[0], timeout=GET_TIME_LIMIT)
            received.packer.place.check_claim()
            if _checksum(received.packer, received.image) != received.sha256:
                raise DataError(
                    f"the image {received.image} is not what it is where the packing was started: --root must be the "
                    f"same folder on all nodes"
                )
            _jobs.clear()
            _jobs[key] = received
        return _jobs[key].packer.pack(unit)
    except DataError as error:
        raise DataError(f"node {platform.node()}: {error}") from None
