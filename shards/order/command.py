"""python -m shards.order: the samples of each global batch, read as ranks and their loader workers read them."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from shards.errors import DataError, Parser
from shards.format import manifest
from shards.order.mixture import Mixture, parse_weight
from shards.order.permutation import LARGEST_SIZE, rank_positions, worker_positions
from shards.order.quality import quality_table
from shards.reading.object_store import is_url
from shards.reading.reader import Folder, Stream

LARGEST_BATCH = 1 << 20
QUALITY_BATCH = 64
_NOT_FOR_QUALITY = ("steps", "start", "world", "workers", "mix")


@dataclass(frozen=True)
class Reader:
    """One loader worker of one rank. It knows its own place and nothing of the others."""

    streams: Sequence[Stream]
    names: Sequence[str]  # of the sources, put before ids; empty where there is one source
    mixture: Mixture
    seed: int
    global_batch: int
    world: int
    rank: int
    workers: int
    worker: int

    def step(self, step: int) -> list[str]:
        """The ids of this worker's samples in step 0, 1, ..., read from the tars."""
        positions = rank_positions(step * self.global_batch, self.global_batch, self.world, self.rank)
        mine = worker_positions(positions, self.workers, self.worker)
        sources, _, indices = self.mixture.locate(mine, self.seed)
        return [self._id(source, i) for source, i in zip(sources.tolist(), indices.tolist(), strict=True)]

    def _id(self, source: int, i: int) -> str:
        stream = self.streams[source]
        name = stream.metadata(i).get("id")
        if not isinstance(name, str):
            raise DataError(f"{stream.folder.path}: sample {stream.keys[i]} has no 'id' that is text; pack it again")
        shown = f"{self.names[source]}/{name}" if self.names else name
        # Ids are separated by tabs, batches by ends of lines.
        return shown if shown.isprintable() else ascii(shown)[1:-1]


def global_batches(
    streams: Sequence[Stream],
    names: Sequence[str],
    mixture: Mixture,
    seed: int,
    global_batch: int,
    world: int,
    workers: int,
    steps: range,
) -> Iterator[list[str]]:
    """The ids of each step's global batch in order, put together from what each worker of each rank has read."""
    busy = range(min(workers, -(-global_batch // world)))  # other workers have nothing to read
    readers = [
        [Reader(streams, names, mixture, seed, global_batch, world, rank, workers, worker) for worker in busy]
        for rank in range(world)
    ]
    for step in steps:
        batch = [""] * global_batch
        for rank, its_readers in enumerate(readers):
            share = [""] * len(range(rank, global_batch, world))
            for reader in its_readers:
                share[reader.worker :: workers] = reader.step(step)
            batch[rank::world] = share
        yield batch


def make_parser() -> Parser:
    parser = Parser(prog="shards.order", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="shard folder, or several to be mixed")
    parser.add_argument("--global-batch", type=int, metavar="B", help="samples a step over all ranks")
    parser.add_argument("--steps", type=int, metavar="S", help="print steps up to S, a line a step, ids tab-separated")
    parser.add_argument("--start", type=int, metavar="P", help="begin at step P: the first P lines are left out")
    parser.add_argument("--world", type=int, metavar="W", help="ranks; B must be a multiple of W (default: 1)")
    parser.add_argument("--workers", type=int, metavar="V", help="loader workers of each rank (default: 1)")
    parser.add_argument(
        "--mix", metavar="NAME=WEIGHT,...", help="weight of each folder, by its last name (default: all the same)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")
    parser.add_argument("--split", choices=manifest.SPLITS, default="train", help="(default: train)")
    parser.add_argument("--kind", choices=manifest.KINDS, default="pair", help="(default: pair)")
    parser.add_argument(
        "--quality", action="store_true", help="how well one folder is shuffled, beside two other ways of shuffling"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    if options.quality:
        return _print_quality(options)
    for name in ("global_batch", "steps"):
        if getattr(options, name) is None:
            raise DataError(f"--{name.replace('_', '-')} is missing (see python -m shards.order --help)")
    batch, start = options.global_batch, options.start or 0
    # Without a default of their own: --quality refuses them.
    world, workers = (1 if count is None else count for count in (options.world, options.workers))
    _check_counts(batch, world, workers, start, options.steps)
    names = [_last_name(location) for location in options.dirs]
    weights = _weights(options.mix, names)
    streams = [_stream(location, options) for location in options.dirs]
    mixture = Mixture([len(stream) for stream in streams], weights)
    prefixes = names if len(names) > 1 else []
    steps = range(start, options.steps)
    for ids in global_batches(streams, prefixes, mixture, options.seed, batch, world, workers, steps):
        print("\t".join(ids))
    return 0


def _print_quality(options: argparse.Namespace) -> int:
    for name in _NOT_FOR_QUALITY:
        if getattr(options, name) is not None:
            raise DataError(f"--{name} has no meaning with --quality: leave it out")
    if len(options.dirs) > 1:
        raise DataError("--quality looks at one folder at a time: name one")
    stream = _stream(options.dirs[0], options)
    if len(stream) < 2:
        raise DataError(f"{options.dirs[0]} has one {options.kind} sample in {options.split}: nothing to shuffle")
    batch = min(QUALITY_BATCH, len(stream)) if options.global_batch is None else options.global_batch
    if not 2 <= batch <= len(stream):
        raise DataError(f"--global-batch {batch} must be from 2 to {len(stream)}, the samples of the split")
    shards = stream.folder.manifest["shards"]
    samples = [shard["samples"] for shard in shards if (shard["kind"], shard["split"]) == (options.kind, options.split)]
    print(quality_table(samples, options.seed, batch))
    return 0


def _check_counts(batch: int, world: int, workers: int, start: int, steps: int) -> None:
    values = {"global-batch": batch, "world": world, "workers": workers, "start": start, "steps": steps}
    for option, value in values.items():
        least = 0 if option in ("start", "steps") else 1
        if value < least:
            raise DataError(f"--{option} is {value} and must be {least} or more")
    if batch > LARGEST_BATCH or steps * batch > LARGEST_SIZE:
        raise DataError(f"--global-batch is at most {LARGEST_BATCH}, and --steps times it at most 2^62")
    if start > steps:
        raise DataError(f"--start {start} lies behind --steps {steps}, the step at which the lines end")


def _last_name(location: str) -> str:
    """The last component of a path or URL."""
    return location.rstrip("/").rpartition("/")[2] if is_url(location) else os.path.basename(os.path.abspath(location))


def _weights(mix: str | None, names: Sequence[str]) -> list[Fraction]:
    """The weight of each folder; DataError where names are ambiguous, unknown or left out."""
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two folders are called {name}, so ids would look the same: link one by another name")
    if mix is None:
        return [Fraction(1)] * len(names)
    weights: dict[str, Fraction] = {}
    for entry in mix.split(","):
        name, sign, text = (part.strip() for part in entry.rpartition("="))
        if not sign:
            raise DataError(f"--mix {mix!r} is not of the form NAME=WEIGHT,NAME=WEIGHT")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1) or names
            raise DataError(f"--mix names {name!r}, which is not the last name of a DIR: did you mean {near[0]}?")
        if name in weights:
            raise DataError(f"--mix names {name} twice")
        try:
            weights[name] = parse_weight(text)
        except DataError as error:
            raise DataError(f"--mix {entry.strip()}: {error}") from None
    for name in names:
        if name not in weights:
            raise DataError(f"--mix has no weight for {name}: add {name}=WEIGHT, or leave the folder out")
    return [weights[name] for name in names]


def _stream(location: str, options: argparse.Namespace) -> Stream:
    stream = Folder.open(location).stream(options.kind, options.split)
    if not len(stream):
        raise DataError(f"{location} has no {options.kind} samples in {options.split}: give another --kind or --split")
    return stream
