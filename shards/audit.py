"""python -m shards.audit DIR...: are there pictures that occur twice, and does the test split know the training split?

One line a leak (pictures in more than one split, within a folder or across folders), then counts. Exit code 1 where a
picture is in more than one split, 0 where none is, 2 for bad input. Duplicates within a split and captions in several
splits are counted, and listed by --all. A sample's own images, before and after, never count against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from shards.checks.leaks import audit, report
from shards.errors import Parser, run_main


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = Parser(prog="shards.audit", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="shard folders of images, or URLs of such")
    parser.add_argument("--all", action="store_true", help="list duplicates within a split and shared captions too")
    given = parser.parse_args(arguments)
    found = audit(given.folders)
    for line in report(found, given.all):
        print(line)
    return 1 if any(is_leak for is_leak, _, _ in found.findings()) else 0


if __name__ == "__main__":
    run_main(main)
