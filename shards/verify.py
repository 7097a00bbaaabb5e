"""python -m shards.verify DIR: is the folder, byte for byte, what its manifest says?

One line a finding, naming the file and the member, and exit code 1; a summary and 0 where all is well; 2 where DIR is
no finished shard folder at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from shards.checks.verification import open_manifest, verify
from shards.errors import DataError, Parser, run_main
from shards.reading.object_store import Bucket, is_url


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = Parser(prog="shards.verify", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", metavar="DIR", help="a folder made by shards.pack or cluster.features, or its URL")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: all cores)"
    )
    given = parser.parse_args(arguments)
    if given.workers < 1:
        raise DataError(f"--workers is {given.workers}: it must be at least 1")
    findings = verify(given.folder, given.workers)
    for finding in findings:
        print(finding)
    if findings:
        return 1
    contents, _ = open_manifest(given.folder, Bucket(given.folder) if is_url(given.folder) else None)
    shards = contents["shards"]
    samples, size = (sum(shard[name] for shard in shards) for name in ("samples", "bytes"))
    print(f"{given.folder}: {samples} samples in {len(shards)} shards, {size / 2**20:.1f} MiB, every byte as packed")
    return 0


if __name__ == "__main__":
    run_main(main)
