"""python -m cluster.doctor: whether this machine, or every node of a Ray cluster, can train; and the fix.

On the cluster that RAY_ADDRESS names all of its nodes are looked at, else this machine. Nothing hangs: each check has
--limit seconds and says what it waited for. Exit code 1 where something is missing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster import CODE
from cluster.checks.examine import examine
from cluster.checks.finding import MISS, OK, WARN, Finding, line, merged, miss
from cluster.checks.nodes import Node, here, leave_ray, of_ray
from shards.errors import DataError, Parser, run_main
from shards.reading.object_store import is_url


def main(arguments: Sequence[str]) -> int:
    """Looks and prints; exit code 0, 1 where something is missing, 2 (by run_main) for the user's mistakes."""
    parser = Parser(prog="cluster.doctor", description=__doc__)
    parser.add_argument("--root", default="", help="folder of data/ and runs/ [$IDC_HOME, else the checkout]")
    parser.add_argument("--shards", nargs="+", default=[], metavar="DIR", help="shard folders or URLs to look into")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="longest time of a check [120]")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of lines")
    options = parser.parse_args(arguments)
    if options.limit <= 0:
        raise DataError(f"--limit {options.limit:g} must be more than 0 seconds")
    address = os.environ.get("RAY_ADDRESS", "")
    if address and not re.fullmatch(r".+:\d+", address):
        raise DataError(
            f"RAY_ADDRESS {address!r} must be the Ray cluster's HOST:PORT; unset it to look at this machine"
        )

    from cluster.launch.run_folder import find_root

    started, root = time.monotonic(), find_root(options.root, CODE)
    shards = [place if is_url(place) else str(Path(place).absolute()) for place in options.shards]
    nodes: list[Node] = []
    try:
        nodes = of_ray(address, options.limit) if address else here()
        found = examine(nodes, root, shards, options.limit)
    except (OSError, RuntimeError) as error:
        if nodes or not address:
            raise
        found = [_no_ray(address, options.limit, error)]
    finally:
        if address and "ray" in sys.modules:
            leave_ray()
    _print(merged(found), [node.name for node in nodes], time.monotonic() - started, options.json)
    return int(any(one.level == MISS for one in found))


def _no_ray(address: str, limit_s: float, error: Exception) -> Finding:
    what = f"it waited {limit_s:g} s for Ray to connect" if isinstance(error, TimeoutError) else str(error)
    fix = "start Ray there, or unset RAY_ADDRESS; a token of the cluster belongs into RAY_AUTH_TOKEN_PATH"
    return miss("ray", f"no cluster at {address} ({' '.join(what.split())[:300]})", fix)


def _print(entries: list[dict], nodes: list[str], seconds: float, as_json: bool) -> None:
    levels = [entry["level"] for entry in entries]
    worst = next(level for level in (MISS, WARN, OK) if level in levels)
    if as_json:
        print(json.dumps({"level": worst, "nodes": nodes, "seconds": round(seconds, 1), "findings": entries}, indent=1))
        return
    for entry in entries:
        print(line(entry, len(nodes)))
    where = f"{len(nodes)} nodes" if len(nodes) > 1 else "this machine" if nodes == [""] else "one node"
    print(f"{worst}: {where}, {', '.join(f'{levels.count(one)} {one}' for one in (OK, WARN, MISS))}, {seconds:.0f} s")


if __name__ == "__main__":
    run_main(main)
