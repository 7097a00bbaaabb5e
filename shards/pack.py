"""python -m shards.pack SOURCE --out DIR: turns a data set into a shard folder.

Records, hard negatives, tokenizer, then the tars, by worker processes; manifest.json comes last. Interrupted and run
again with the same options, it keeps the shards that are whole and goes on. The same data give the same bytes, whatever
the number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from shards import index, manifest
from shards.errors import USER_ERROR, DataError, Parser, run_main
from shards.negatives import COUNT, find_negatives
from shards.packing_state import claimed, finished, finished_entry, is_whole, note_finished
from shards.pool import pack_units
from shards.record import Record, Source
from shards.sources import NAMES, make_source
from shards.tars import PARTIAL
from shards.units import Shard, Unit, make_units
from shards.vocabulary import KINDS, text_statistics, train_tokenizer


def pack(
    source: Source,
    out: str | Path,
    workers: int = 1,
    tokenizer: str = "sentencepiece",
    vocabulary_size: int | None = None,
    minimum_count: int = 1,
    negatives: int = COUNT,
    limit: int | None = None,
    seed: int = 0,
) -> dict:
    """Packs a source into the folder `out` and returns its manifest.

    `workers` processes write the tars; `tokenizer`, `vocabulary_size` and `minimum_count` as in train_tokenizer;
    `negatives` sentences a list; at most `limit` samples of each kind and split; `seed` is that of the negatives.
    A folder that is complete and whole is left as it is. Raises DataError where options do not fit, the folder holds
    something else, or another process packs into it.
    """
    out = Path(out)
    for name, value, least in (("--workers", workers, 1), ("--limit", limit, 1), ("--negatives", negatives, 0)):
        if value is not None and value < least:
            raise DataError(f"{name} is {value}: it must be at least {least}")
    options = source.describe() | {
        "tokenizer": tokenizer,
        "vocabulary_size": vocabulary_size,
        "minimum_count": minimum_count,
        "negatives": negatives,
        "limit": limit,
        "negatives_seed": seed,
    }
    identity = json.loads(manifest.encode({"schema": manifest.SCHEMA, "source": source.name, "options": options}))
    contents = finished(out, identity)
    if contents is not None:
        _say(f"{out} is packed already")
        return contents
    try:
        with claimed(out, identity):
            return _Packing(source, out, workers, identity).run()
    except OSError as error:  # a full disk, a file system that went away
        raise DataError(
            f"{error.filename or out}: {error.strerror or error}; mend this and run the same again"
        ) from None


class _Packing:
    """One run of the packer over a folder it has claimed."""

    def __init__(self, source: Source, out: Path, workers: int, identity: dict) -> None:
        self.source = source
        self.out = out
        self.workers = workers
        self.identity = identity
        self.options = identity["options"]

    def run(self) -> dict:
        """All of it, in order; returns the manifest."""
        _say(f"{self.source.name}: reading records")
        records = self._records()
        _say(f"{self.source.name}: finding hard negatives for {len(records)} samples")
        negatives = find_negatives(records, self.options["negatives"], self.options["negatives_seed"])
        captions = [caption for record in records if record.split == "train" for caption in record.captions]
        units = make_units(records, negatives, self.source.name)
        self._clear({shard.name for unit in units for shard in unit.shards})
        entry = self._tokenizer(captions)
        shards = self._shards(units)
        dropped = Counter(getattr(self.source, "dropped", {}))
        for shard in shards:
            dropped.update(shard.pop("dropped", {}))
            for lost in shard.pop("lost", ()):
                _say(f"left out: {lost}")
        contents = self.identity | {
            "splits": manifest.count_splits(shards),
            "shards": shards,
            "classes": self.source.classes(),
            "tokenizer": entry,
            "text": text_statistics(captions),
            "dropped": dict(dropped),
        }
        manifest.write(self.out, contents)
        return contents

    def _records(self) -> list[Record]:
        """The source's records, the first `limit` of each kind and split."""
        records = self.source.records(self.workers)
        if self.options["limit"] is not None:
            taken: Counter[tuple[str, str]] = Counter()
            kept = []
            for record in records:
                taken[record.kind, record.split] += 1
                if taken[record.kind, record.split] <= self.options["limit"]:
                    kept.append(record)
            records = kept
        if not records:
            reasons = ", ".join(f"{count} {reason}" for reason, count in getattr(self.source, "dropped", {}).items())
            raise DataError(f"{self.source.name} has no samples to pack ({reasons or 'it is empty'})")
        repeated = [key for key, count in Counter(record.key for record in records).items() if count > 1]
        if repeated:
            raise DataError(f"{self.source.name}: {len(repeated)} keys come twice, the first is {repeated[0]!r}")
        return records

    def _clear(self, planned: set[str]) -> None:
        """Removes what a run with another plan, or one that was killed, left in the folder."""
        for path in self.out.iterdir():
            name = path.name.replace(index.ENDING, ".tar")
            if path.name.endswith(PARTIAL) or path.name.startswith("tokenizer."):
                path.unlink()
            elif manifest.SHARD_NAME.fullmatch(name) and name not in planned:
                path.unlink()

    def _tokenizer(self, captions: list[str]) -> dict | None:
        """The manifest's entry; None where there is no training text: test captions teach nothing."""
        if not captions:
            _say("no training captions: the folder gets no tokenizer and can be evaluated on, not trained on")
            return None
        return train_tokenizer(
            captions,
            self.out,
            self.options["tokenizer"],
            self.options["vocabulary_size"],
            self.options["minimum_count"],
        )

    def _shards(self, units: list[Unit]) -> list[dict]:
        """Writes the tars that are not there yet and returns all manifest entries, in the order of the plan."""
        entries = self._whole([shard for unit in units for shard in unit.shards])
        wanted = [Unit([shard for shard in unit.shards if shard.name not in entries]) for unit in units]
        wanted = [unit for unit in wanted if unit.shards]
        total = sum(unit.size for unit in units)
        bar = tqdm(
            desc=f"packing {self.out}",
            total=total,
            initial=total - sum(unit.size for unit in wanted),
            unit="sample",
            mininterval=0.5 if sys.stderr.isatty() else 15,
        )
        with bar:
            for unit, written in pack_units(self.source, self.out, wanted, self.workers):
                for entry in written:
                    entries[entry["name"]] = entry
                    note_finished(self.out, entry)
                bar.update(unit.size)
        return [entries[shard.name] for unit in units for shard in unit.shards]

    def _whole(self, planned: list[Shard]) -> dict[str, dict]:
        """Entries of the planned shards that an earlier run finished, from the same inputs, and that are undamaged."""
        entries = {}
        for shard in planned:
            entry = finished_entry(self.out, shard.name)
            if entry and entry.get("inputs_sha256") == shard.inputs_sha256() and is_whole(self.out, entry):
                entries[shard.name] = entry
        return entries


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _counts(count: int):
    """A parser of "3600,150,250" and of "160x120": that many whole numbers."""

    def parse(text: str) -> tuple[int, ...]:
        numbers = tuple(int(part) for part in text.replace("x", ",").split(","))
        if len(numbers) != count:
            raise ValueError
        return numbers

    parse.__name__ = f"list of {count} whole numbers"
    return parse


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="shards.pack", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("source", choices=NAMES, metavar="SOURCE", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--root", metavar="DIR", help="the folder of the data set (blocks needs none)")
    parser.add_argument("--out", metavar="DIR", required=True, help="the shard folder to make")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N samples of each kind and split")
    parser.add_argument("--tokenizer", choices=KINDS, default="sentencepiece", help="default: %(default)s")
    parser.add_argument("--vocabulary-size", type=int, metavar="N", help="default: as large as the captions need")
    parser.add_argument("--minimum-count", type=int, default=1, metavar="N", help="words only: rarer ones become <unk>")
    parser.add_argument("--negatives", type=int, default=COUNT, metavar="N", help="per list (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of scenes and negatives (default: 0)")
    blocks = parser.add_argument_group("blocks alone")
    blocks.add_argument(
        "--scenes", type=_counts(3), metavar="TRAIN,VAL,TEST", help="scenes in each split (default: 4000,250,500)"
    )
    blocks.add_argument("--size", type=_counts(2), metavar="WxH", help="of the images in pixels (default: 160x120)")
    blocks.add_argument("--supersample", type=int, metavar="N", help="rays along each side of a pixel (default: 2)")
    blocks.add_argument(
        "--relational", type=float, metavar="SHARE", help="of captions that refer by place (default: 0.0)"
    )
    blocks.add_argument("--class-photos", type=int, metavar="N", help="photos of each class (default: 40)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return USER_ERROR
    given = parser.parse_args(arguments)
    names = ("scenes", "size", "supersample", "relational", "class_photos")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.source == "blocks":
        options["seed"] = given.seed
    contents = pack(
        make_source(given.source, given.root, options),
        given.out,
        workers=given.workers,
        tokenizer=given.tokenizer,
        vocabulary_size=given.vocabulary_size,
        minimum_count=given.minimum_count,
        negatives=given.negatives,
        limit=given.limit,
        seed=given.seed,
    )
    for split, counts in contents["splits"].items():
        print(
            f"{split}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            or f"{split}: nothing"
        )
    for reason, count in contents["dropped"].items():
        print(f"left out: {count} {reason}")
    return 0


if __name__ == "__main__":
    run_main(main)
