"""python -m cluster.distributed.nodes COUNT [--limit SECONDS]: waits for COUNT nodes of the Ray cluster at RAY_ADDRESS.

A job script calls it before the training: half a cluster would train with half its workers (ray#10781).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Sequence

from cluster.errors import TrainingError
from shards.errors import DataError, Parser, run_main


def wait_for_nodes(count: int, limit_s: float) -> list[dict]:
    """The nodes of the cluster at RAY_ADDRESS once there are `count`, as `ray.nodes()` gives them.

    Raises TrainingError where there are fewer after `limit_s` seconds, or more.
    """
    address, until = os.environ["RAY_ADDRESS"], time.monotonic() + limit_s
    host, _, port = address.rpartition(":")
    while True:  # Ray's own attempts on a port that nothing listens at take 40 s
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
            break
        if time.monotonic() > until:
            raise TrainingError(f"no Ray head at {address} after {limit_s:g} s")
        time.sleep(0.2)
    import ray

    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        while True:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            if len(nodes) > count:
                raise TrainingError(f"{len(nodes)} nodes at {address}, where {count} were started: {_names(nodes)}")
            if len(nodes) == count:
                return nodes
            if time.monotonic() > until:
                raise TrainingError(f"{len(nodes)} of {count} Ray nodes after {limit_s:g} s: {_names(nodes)}")
            time.sleep(0.2)
    finally:
        ray.shutdown()


def _names(nodes: Sequence[dict]) -> str:
    return ", ".join(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes)


def main(arguments: Sequence[str]) -> int:
    """Waits and names the nodes; exit code 0, 1 where they do not come, 2 (by run_main) for the user's mistakes."""
    parser = Parser(prog="python -m cluster.distributed.nodes", description=__doc__)
    parser.add_argument("count", type=int, help="nodes to wait for")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="longest wait [180]")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r".+:\d+", os.environ.get("RAY_ADDRESS", "")):
        raise DataError("RAY_ADDRESS must be the Ray cluster's HOST:PORT")
    started = time.monotonic()
    try:
        nodes = wait_for_nodes(options.count, options.limit)
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"ray      {len(nodes)} nodes after {time.monotonic() - started:.1f} s: {_names(nodes)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_main(main)
