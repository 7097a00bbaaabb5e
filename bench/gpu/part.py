"""One part of the command, in a process that ends with the command's: `python -m bench.gpu.part PARENT NAME ...`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from bench.gpu.machine import stamp
from bench.gpu.record import Record
from tune.trials.run import tie_to


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.gpu.part")
    parser.add_argument("name")
    parser.add_argument("module")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(arguments)
    record = Record(given.name, given.out, given.work, given.device, given.small, given.seconds, stamp(given.device))
    importlib.import_module(given.module).run(record)
    record.write()
    return 0


if __name__ == "__main__":
    tie_to(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
