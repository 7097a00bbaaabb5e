"""Pairs a second that one core reads and decodes, ours beside other loaders: `python bench/loader.py [DIR]`.

Prints a table; docs/storage.md says what is measured. The exit code is 1 where ours stays below 0.95 of a bare loop or
below 1.3 times webdataset.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.loader_rivals import Data, Loader, Pair, loaders  # noqa: E402
from shards.errors import DataError, run_main  # noqa: E402
from shards.format import manifest  # noqa: E402
from shards.format.tars import crc32c  # noqa: E402
from shards.pack import pack  # noqa: E402
from shards.sources.blocks import TRAIN_PAIRINGS, BlocksSource  # noqa: E402

SIZE = (208, 156)  # docs/storage.md says what other sizes give
TURN = 50  # pairs
BARE, OURS, WEBDATASET = "bare loop", "ours", "webdataset"
BARS = {BARE: 0.95, WEBDATASET: 1.3}  # of ours
PACKAGES = ("simplejpeg", "pillow", "numpy", "webdataset", "mosaicml-streaming")


def packed_blocks(pairs: int) -> Path:
    """A folder of rendered scenes with about so many training pairs, made where it is not there."""
    folder = Path("data") / f"loader-{pairs}"
    if not (folder / manifest.FILE).is_file():
        scenes = -(-pairs // len(TRAIN_PAIRINGS))
        pack(BlocksSource(scenes=(scenes, 0, 0), size=SIZE, supersample=1, class_photos=0), folder, workers=None)
    return folder


def output_sum(pairs: Iterable[Pair]) -> tuple[int, int, int]:
    """(number, sum of the json's checksums, sum of the pixels' checksums) of pairs in any order."""
    number = records = pixels = 0
    for pair in pairs:
        number += 1
        records += crc32c(json.dumps(pair.record, sort_keys=True).encode())
        pixels += crc32c(pair.before.tobytes() + pair.after.tobytes())
    return number, records, pixels


def measure(rows: Sequence[Loader], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each epoch of each loader: of processor time, all threads together, and by the clock.

    Loaders take turns every TURN pairs, in an order drawn anew: what else the machine does then falls on all alike. One
    that has threads would go on working in the others' turns, so it has each epoch to itself.
    """
    cores, draw = os.sched_getaffinity(0), random.Random(0)
    busy: dict[str, list[float]] = {row.name: [] for row in rows}
    clock: dict[str, list[float]] = {row.name: [] for row in rows}
    try:
        for repeat in range(repeats):
            for together in ([row for row in rows if not row.threads], *([row] for row in rows if row.threads)):
                epochs = {row: row.epoch(1 + repeat) for row in together}
                for row in together:
                    busy[row.name].append(0.0)
                    clock[row.name].append(0.0)
                while epochs:
                    for row in draw.sample(list(epochs), len(epochs)):
                        os.sched_setaffinity(0, sorted(cores)[: row.cores])
                        started = time.process_time(), time.perf_counter()
                        read = sum(1 for _ in islice(epochs[row], None if row.threads else TURN))
                        busy[row.name][-1] += time.process_time() - started[0]
                        clock[row.name][-1] += time.perf_counter() - started[1]
                        if row.threads or read < TURN:
                            del epochs[row]
    finally:
        os.sched_setaffinity(0, cores)
    return busy, clock


def ratios(busy: dict[str, list[float]], name: str, base: str) -> list[float]:
    """How many times as many pairs a core-second as `base`, in each repeat."""
    return [theirs / own for own, theirs in zip(busy[name], busy[base], strict=True)]


def versions() -> str:
    """The packages that take part, with their versions."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/loader.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, help="shard folder with pairs of JPEGs in train (default: one is made)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each loader (default: 5)")
    parser.add_argument("--pairs", type=int, default=2000, help="about so many, of whole tars (default: 2000)")
    options = parser.parse_args(arguments)
    for name in ("repeats", "pairs"):
        if getattr(options, name) < 1:
            raise DataError(f"--{name} is {getattr(options, name)}: it must be at least 1")

    data = Data.open(options.folder or packed_blocks(options.pairs), options.pairs)
    with TemporaryDirectory(prefix="loader-") as scratch:
        rows = loaders(data, Path(scratch))
        ready = [row for row in rows if row.epoch]
        outputs = {row.name: output_sum(row.epoch(0)) for row in ready}  # which also warms the page cache
        for name, output in outputs.items():
            if output != outputs[BARE]:
                raise DataError(
                    f"{data.tars[0].parent}: {name} gives {output} (pairs, sums), the bare loop {outputs[BARE]}; "
                    f"photos that EXIF turns cannot be compared, give a folder without"
                )
        busy, clock = measure(ready, options.repeats)

    height, width, _ = data.stream.images(0)["before"].shape
    print(f"{data.count:,} pairs of {width}x{height}, {options.repeats} repeats; {versions()}\n")
    print(f"{'':28}{'pairs/s':>10}{'of the bare loop':>26}{'of webdataset':>15}{'pairs/s':>10}")
    print(f"{'':28}{'a core':>10}{'median (least, most)':>26}{'median':>15}{'by clock':>10}")
    for row in rows:
        if not row.epoch:
            print(f"{row.name:28}{'-':>10}  {row.note}")
            continue
        speed, by_clock = (data.count / statistics.median(taken[row.name]) for taken in (busy, clock))
        of_bare = ratios(busy, row.name, BARE)
        spread = f"{statistics.median(of_bare):.3f} ({min(of_bare):.3f}, {max(of_bare):.3f})"
        of_webdataset = statistics.median(ratios(busy, row.name, WEBDATASET))
        print(f"{row.name:28}{speed:>10,.0f}{spread:>26}{of_webdataset:>15.2f}{by_clock:>10,.0f}")
    print()
    missed = False
    for base, bar in BARS.items():
        reached = statistics.median(ratios(busy, OURS, base))
        missed |= reached < bar
        print(f"ours is {reached:.3f} of {base}; the bar is {bar}: {'reached' if reached >= bar else 'MISSED'}")
    return int(missed)


if __name__ == "__main__":
    run_main(main)
