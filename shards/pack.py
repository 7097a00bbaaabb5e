"""python -m shards.pack SOURCE --out DIR: turns a data set into a shard folder, on this machine or on a Ray cluster.

Records, hard negatives, tokenizer, then the tars, by worker processes; manifest.json comes last. Interrupted and run
again with the same options, it keeps the shards that are whole and goes on. The same data give the same bytes, whatever
the number of workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from shards.errors import USER_ERROR, DataError, Parser, run_main
from shards.format import index, manifest
from shards.format.record import Record, Source
from shards.format.whole_files import write_whole
from shards.images.resizing import Resize
from shards.negatives import text_only
from shards.negatives.mining import COUNT, find_negatives, read_counts
from shards.packing import contradictions, dropped, twins
from shards.packing.jobs import NOTES, Packer, Unit, make_units
from shards.packing.processes import pack_units
from shards.packing.ray_tasks import connected, pack_units_on_ray
from shards.packing.state import Place
from shards.packing.tokenizer import KINDS, text_statistics, train_tokenizer
from shards.progress import Progress, busy, say
from shards.sources import SOURCES, Option, make_source
from shards.wording.denials import learn_denials
from shards.wording.segmentation import is_unspaced

LARGEST = 8192  # pixels a side that --resize takes


def pack(
    source: Source,
    out: str | Path,
    workers: int | None = 1,
    address: str | None = None,
    resize: Resize | None = None,
    tokenizer: str = "sentencepiece",
    vocabulary_size: int | None = None,
    minimum_count: int = 1,
    negatives: int | dict[str, int] = COUNT,
    limit: int | None = None,
    seed: int = 0,
    max_dropped: float = dropped.MOST,
) -> dict:
    """Packs a source into `out`, a folder or the URL of one, and returns its manifest.

    `workers` processes write the tars (None: one a core), on this machine or on the Ray cluster at `address`; `resize`
    is the shorter side or (width, height) of the images in pixels, None keeps their bytes; `tokenizer`,
    `vocabulary_size` and `minimum_count` as in train_tokenizer; `negatives` sentences a list (of each kind, or by
    kind); at most `limit` samples of each kind and split; `seed` is that of the negatives; at most the share
    `max_dropped` of the samples may be left out. What is complete and whole is left as it is. Raises DataError where
    options do not fit, `out` holds something else, another process packs into it, or more is left out; Unreachable
    where a disk or a store fails.
    """
    fewest = negatives if isinstance(negatives, int) else min(negatives.values())
    for name, value, least in (("--workers", workers, 1), ("--limit", limit, 1), ("--negatives", fewest, 0)):
        if value is not None and value < least:
            raise DataError(f"{name} is {value}: it must be at least {least}")
    if not 0 <= max_dropped <= 1:
        raise DataError(f"--max-dropped is {max_dropped:g}: it is a share, 0 to 1")
    options = source.describe() | {
        "tokenizer": tokenizer,
        "vocabulary_size": vocabulary_size,
        "minimum_count": minimum_count,
        "negatives": negatives,
        "limit": limit,
        "negatives_seed": seed,
        "resize": resize,
    }
    identity = json.loads(manifest.encode({"schema": manifest.SCHEMA, "source": source.name, "options": options}))
    try:
        place = Place(out)
        contents = place.finished(identity)
        if contents is not None:
            say(f"{out} is packed already")
            return contents
        with connected(address, workers) if address else nullcontext(), place.claimed(identity):
            return _Packing(source, place, workers, address, identity, max_dropped).run()
    except OSError as error:  # a full disk, a file system that went away
        raise DataError(
            f"{error.filename or out}: {error.strerror or error}; mend this and run the same again"
        ) from None


class _Packing:
    """One run of the packer over a place it has claimed."""

    def __init__(
        self,
        source: Source,
        place: Place,
        workers: int | None,
        address: str | None,
        identity: dict,
        max_dropped: float,
    ) -> None:
        self.source = source
        self.place = place
        self.workers = workers
        self.address = address
        self.identity = identity
        self.options = identity["options"]
        self.max_dropped = max_dropped

    def run(self) -> dict:
        """All of it, in order; returns the manifest."""
        with busy(f"{self.source.name}: reading records"):
            records = self._records()
        counts, seed = self.options["negatives"], self.options["negatives_seed"]
        with busy(f"{self.source.name}: finding hard negatives for {len(records)} samples"):
            negatives = find_negatives(records, counts, seed, self.workers)
        captions = [caption for record in records if record.split == "train" for caption in record.captions]
        units = make_units(records, negatives, self.source.name)
        self.place.clear({shard.name for unit in units for shard in unit.shards})
        entry = self._tokenizer(captions)
        shards, lost = self._shards(units)
        left_out, rows = dropped.summary(self.source, lost)
        learnt = learn_denials(records)
        with busy(f"{self.source.name}: looking for contradictions and for images that come twice", announced=False):
            contradicting = contradictions.find_contradictions(records, learnt)
            shared_images = twins.describe(twins.find_twins(shards, self._rows, self.place.files.read_at))
        contents = self.identity | {
            "splits": manifest.count_splits(shards),
            "shards": shards,
            "classes": self.source.classes(),
            "tokenizer": entry,
            "text": text_statistics(captions),
            "dropped": left_out,
            "contradictions": contradictions.describe(contradicting),
            "negatives": text_only.describe(records, negatives, learnt, counts, seed),
            "denials": sorted(learnt),
            "shared_images": shared_images,
        }
        if rows:
            contents["dropped_file"] = self._list(manifest.DROPPED, rows)
        if contradicting:
            contradicting_rows = contradictions.rows(contradicting)
            contents["contradictions_file"] = self._list(manifest.CONTRADICTIONS, contradicting_rows)
        self.place.publish(contents)
        return contents

    def _records(self) -> list[Record]:
        """The source's records, the first `limit` of each kind and split."""
        cores = len(os.sched_getaffinity(0))
        records = self.source.records(min(self.workers or cores, cores) if self.address else self.workers or cores)
        found = len(records)
        if self.options["limit"] is not None:
            taken: Counter[tuple[str, str]] = Counter()
            kept = []
            for record in records:
                taken[record.kind, record.split] += 1
                if taken[record.kind, record.split] <= self.options["limit"]:
                    kept.append(record)
            records = kept
        if not records:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.source.dropped.items())
            reasons += f"; the first, {self.source.lost[0]}" if self.source.lost else ""
            raise DataError(f"{self.source.name} has no samples to pack ({reasons or 'it is empty'})")
        dropped.check_records(self.source, found, self.max_dropped)
        repeated = [key for key, count in Counter(record.key for record in records).items() if count > 1]
        if repeated:
            raise DataError(f"{self.source.name}: {len(repeated)} keys come twice, the first is {repeated[0]!r}")
        return records

    def _tokenizer(self, captions: list[str]) -> dict | None:
        """The manifest's entry; None where there is no training text: test captions teach nothing."""
        if not captions:
            say("no training captions: the folder gets no tokenizer and can be evaluated on, not trained on")
            return None
        options = self.options
        unspaced = sum(map(is_unspaced, captions))
        if options["tokenizer"] == "words" and unspaced:
            say(
                f"--tokenizer words splits at white space, and {unspaced} of {len(captions)} training captions are of "
                f"a script without spaces, each of them a word: sentencepiece learns pieces of them"
            )
        with self.place.scratch() as folder:
            entry = train_tokenizer(
                captions, folder, options["tokenizer"], options["vocabulary_size"], options["minimum_count"]
            )
            self.place.take(folder / entry["file"])
        return entry

    def _shards(self, units: list[Unit]) -> tuple[list[dict], list[dropped.Lost]]:
        """Writes the tars that are not there yet.

        All manifest entries in the order of the plan, and what was lost.
        """
        resize = self.options["resize"]
        packer = Packer(self.source, self.place, tuple(resize) if isinstance(resize, list) else resize)
        entries = packer.whole([shard for unit in units for shard in unit.shards])
        wanted = [Unit([shard for shard in unit.shards if shard.name not in entries]) for unit in units]
        wanted = [unit for unit in wanted if unit.shards]
        total = sum(unit.size for unit in units)
        if self.address:
            packed = pack_units_on_ray(packer, wanted, self.workers)
        else:
            packed = pack_units(packer, wanted, self.workers or len(os.sched_getaffinity(0)))
        done = total - sum(unit.size for unit in wanted)
        with Progress(f"packing {self.place}", done, total) as progress, closing(packed):
            for unit, written in packed:
                for entry in written:
                    entries[entry["name"]] = entry
                    self.place.note_finished(entry)
                dropped.take_lost(self.source, entries.values(), total, self.max_dropped)
                progress.update(unit.size)
        shards = [entries[shard.name] for unit in units for shard in unit.shards]
        lost = dropped.take_lost(self.source, shards, total, self.max_dropped)
        for line in dropped.named(lost):
            say(line)
        return [{field: entry[field] for field in entry if field not in NOTES} for entry in shards], lost

    def _list(self, name: str, rows: Iterable[Sequence[str]]) -> dict:
        """Writes a list of tab-separated lines beside the shards and returns the manifest's entry of it."""
        lines = ["\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows]
        data = "".join(lines).encode()
        with self.place.scratch() as folder:
            write_whole(folder / name, data)
            self.place.take(folder / name)
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "lines": len(lines)}

    def _rows(self, tar: str) -> list[index.Row]:
        """The index of a tar that is packed."""
        path = index.path_of(Path(tar))
        return index.parse(self.place.files.read(path.name), path)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="shards.pack", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("source", choices=tuple(SOURCES), metavar="SOURCE", help=f"one of {', '.join(SOURCES)}")
    parser.add_argument("--root", metavar="DIR", help="the folder of the data set (blocks needs none)")
    parser.add_argument("--out", metavar="DIR", required=True, help="the shard folder to make, or a URL: s3://...")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.add_argument("--address", metavar="HOST:PORT", help="pack on this Ray cluster; auto: this node's")
    parser.add_argument(
        "--resize",
        type=_resize,
        metavar="N|WxH",
        help="shorter side at most N, or this size (default: bytes are kept)",
    )
    parser.add_argument(
        "--max-dropped",
        type=float,
        default=dropped.MOST,
        metavar="SHARE",
        help="of the samples that may be left out (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N samples of each kind and split")
    parser.add_argument("--tokenizer", choices=KINDS, default="sentencepiece", help="default: %(default)s")
    parser.add_argument("--vocabulary-size", type=int, metavar="N", help="default: as large as the captions need")
    parser.add_argument("--minimum-count", type=int, default=1, metavar="N", help="words only: rarer ones become <unk>")
    negatives = "sentences of each kind, or as in retrieve=6,replace=4,confuse=2 (default: %(default)s)"
    parser.add_argument("--negatives", default=str(COUNT), metavar="N", help=negatives)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of scenes, edits and negatives (default: 0)")
    groups: dict[str, list[str]] = {}  # options by flag: two sources may share one
    offered: dict[str, Option] = {}
    for name, adapter in SOURCES.items():
        for option in adapter.options:
            groups.setdefault(option.flag, []).append(name)
            offered.setdefault(option.flag, option)
    own = parser.add_argument_group("options of one source")
    for flag, option in offered.items():
        text = f"{', '.join(groups[flag])}: {option.help}"
        own.add_argument(flag, type=option.type, choices=option.choices, metavar=option.metavar, help=text)
    return parser


def _resize(text: str) -> Resize:
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() and 1 <= int(side) <= LARGEST for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give the shorter side (256) or width and height (320x240), 1 to {LARGEST} pixels"
        )
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def notes(contents: dict, where: str) -> Iterator[str]:
    """What a person should know of a packed folder before training on it, a line each; nothing of an older folder."""
    yield from contradictions.report(contents.get("contradictions", {}))
    if "contradictions_file" in contents:
        yield f"the list of them: {where}/{contents['contradictions_file']['file']}"
    yield from twins.report(contents.get("shared_images", {}), where)
    told = list(text_only.report(contents.get("negatives", {})))
    yield from told
    if told:
        yield "what that says of negatives, which FDA alone reads: docs/negatives.md"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return USER_ERROR
    given = parser.parse_args(arguments)
    names = {option.keyword for adapter in SOURCES.values() for option in adapter.options}
    options = {name: getattr(given, name) for name in sorted(names) if getattr(given, name) is not None}
    if SOURCES[given.source].drawn:
        options["seed"] = given.seed
    # Workers on a cluster run in another folder.
    root = os.path.abspath(given.root) if given.root and given.address else given.root
    contents = pack(
        make_source(given.source, root, options),
        given.out,
        workers=given.workers,
        address=given.address,
        resize=given.resize,
        tokenizer=given.tokenizer,
        vocabulary_size=given.vocabulary_size,
        minimum_count=given.minimum_count,
        negatives=read_counts(given.negatives),
        limit=given.limit,
        seed=given.seed,
        max_dropped=given.max_dropped,
    )
    for split, counts in contents["splits"].items():
        print(f"{split}: " + (", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"))
    for reason, count in contents["dropped"].items():
        print(f"left out: {count} {reason}")
    if "dropped_file" in contents:
        print(f"the list of what was left out: {given.out.rstrip('/')}/{contents['dropped_file']['file']}")
    for line in notes(contents, given.out.rstrip("/")):
        print(line)
    return 0


if __name__ == "__main__":
    run_main(main)
