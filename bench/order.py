"""What a restart costs: the first batch at 75 % of an epoch beside the first at 0: `python bench/order.py [DIR]`.

Prints one JSON line. `first_batch_ms`: a shard folder is opened anew, and a batch of pairs read and decoded.
`order_1e8_us` and `mixture_1e8_us`: a batch's samples are found in an epoch of 10^8, of one source and of three mixed.
Each is the median of interleaved repeats, every repeat one batch further on, with warm caches; the exit code is 1 where
a start at 75 % takes more than 1.5 times as long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shards.errors import DataError, run_main  # noqa: E402
from shards.order.mixture import Mixture  # noqa: E402
from shards.order.permutation import rank_positions  # noqa: E402
from shards.reading.reader import Folder  # noqa: E402

BATCH = 64
SIZE = 10**8
BAR = 1.5


def first_batch(folder: Path, share: float, number: int) -> None:
    """What a loader does until its first batch is there: the batch `number` after this share of the first epoch."""
    stream = Folder.open(folder).stream("pair", "train")
    if not len(stream):
        raise DataError(f"{folder} has no pairs in train: name another folder")
    start = int(share * len(stream)) + number * BATCH
    _, _, indices = Mixture([len(stream)], [1]).locate(rank_positions(start, BATCH, 1, 0), 0)
    for i in indices.tolist():
        stream.metadata(i)
        stream.images(i)


def compare(call: Callable[[float, int], object], repeats: int, scale: float) -> dict:
    """The medians of call(0, i) and call(0.75, i), in units of 1 / scale seconds, and their ratio."""
    times: dict[float, list[float]] = {0.0: [], 0.75: []}
    for share in times:
        call(share, 0)
    for number in range(repeats):
        for share, taken in times.items():
            started = time.perf_counter()
            call(share, number)
            taken.append(time.perf_counter() - started)
    at_0, at_75 = (statistics.median(taken) for taken in times.values())
    return {"at_0": round(at_0 * scale, 3), "at_75": round(at_75 * scale, 3), "ratio": round(at_75 / at_0, 3)}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("data/blocks"), help="shard folder with pairs in train"
    )
    parser.add_argument("--repeats", type=int, default=11, help="of each measurement (default: 11)")
    options = parser.parse_args(arguments)
    result: dict = {
        "batch": BATCH,
        "first_batch_ms": compare(partial(first_batch, options.folder), options.repeats, 1e3),
    }
    for name, mixture in (
        ("order_1e8_us", Mixture([SIZE], [1])),
        ("mixture_1e8_us", Mixture([SIZE, SIZE // 3, 977], [5, 3, 2])),
    ):

        def find(share: float, number: int, mixture: Mixture = mixture) -> None:
            mixture.locate(rank_positions(int(share * SIZE) + number * BATCH, BATCH, 1, 0), 0)

        result[name] = compare(find, 50 * options.repeats, 1e6)
    slow = any(entry["ratio"] > BAR for entry in result.values() if isinstance(entry, dict))
    print(json.dumps(result))
    return 1 if slow else 0


if __name__ == "__main__":
    run_main(main)
