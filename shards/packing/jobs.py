"""One worker's share of packing: samples of one split and unit become tars, one a kind, that depend on nothing else."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shards.errors import DataError, Unreachable
from shards.format import index, manifest
from shards.format.record import FromFiles, Record, Source
from shards.format.tars import shard_name, write_shard
from shards.images.decode import decode_image, jpeg_or_png, sniff
from shards.images.resizing import Resize, resized
from shards.packing.state import Place

NOTES = ("lost", "stamp")  # of an entry, for going on alone: no part of the manifest


@dataclass(frozen=True)
class Sample:
    """A sample as it will be packed, without pixels: key, the source's name of it, the image id of each role, json."""

    key: str
    id: str
    images: dict[str, str]
    json: bytes


@dataclass(frozen=True)
class Shard:
    """A tar to be written."""

    name: str
    kind: str
    split: str
    samples: list[Sample]

    def inputs_sha256(self) -> str:
        """A hash of all that the tar is made from but pixels: a finished shard with another one is packed anew."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(manifest.encode([sample.key, sample.images]) + b"\n" + sample.json + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Unit:
    """The tars that one worker call writes, of one (split, unit) of a source: images they share are made once."""

    shards: list[Shard] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many samples it has."""
        return sum(len(shard.samples) for shard in self.shards)


def make_units(records: list[Record], negatives: list[dict | None], source: str) -> list[Unit]:
    """Groups records into the tars they will be packed in: a plan that depends on the records alone.

    `negatives` belongs to `records` one to one (None for class photos). Tars are numbered from 0 by kind and split.
    """
    grouped: dict[tuple[int, int], dict[str, list[Sample]]] = {}
    for record, wrong in zip(records, negatives, strict=True):
        place = (manifest.SPLITS.index(record.split), record.unit)
        images = {member.partition(".")[0]: image for member, image in record.images.items()}
        sample = Sample(record.key, record.id, images, manifest.encode(describe(record, wrong, source)))
        grouped.setdefault(place, {}).setdefault(record.kind, []).append(sample)
    units = []
    numbers: Counter[tuple[str, str]] = Counter()
    for place in sorted(grouped):
        split = manifest.SPLITS[place[0]]
        unit = Unit()
        for kind in manifest.KINDS:
            if kind in grouped[place]:
                name = shard_name(kind, split, numbers[kind, split])
                numbers[kind, split] += 1
                unit.shards.append(Shard(name, kind, split, grouped[place][kind]))
        units.append(unit)
    return units


def describe(record: Record, negatives: dict[str, list[str]] | None, source: str) -> dict:
    """The json of a sample."""
    fields: dict = {"kind": record.kind, "source": source, "id": record.id}
    if record.kind == "class":
        return fields | {"class_id": record.class_id, "class_name": record.class_name}
    fields |= {"captions": list(record.captions), "negatives": negatives}
    if record.kind == "pair":
        fields |= {"changed": record.changed, "change_type": record.change_type}
    if record.truth is not None:
        fields["truth"] = record.truth
    return fields


@dataclass(frozen=True)
class Packer:
    """What every worker gets: the source, where its tars go, and what becomes of its images."""

    source: Source
    place: Place
    resize: Resize | None = None

    def pack(self, unit: Unit) -> list[dict]:
        """Writes the tars of a unit and returns their manifest entries.

        A sample whose image is missing, damaged or of an unknown format is left out; the entry then has "lost", a list
        of [sample id, image, fault]. An entry of images that are files has their "stamp". Raises Unreachable where a
        disk fails, which says nothing about the image.
        """
        self.place.check_claim()
        stamps = [self.stamp(shard) for shard in unit.shards]  # before the images are read
        uses = Counter(image for shard in unit.shards for sample in shard.samples for image in sample.images.values())
        kept: dict[str, tuple[str, bytes] | DataError] = {}

        def fetch(image: str) -> tuple[str, bytes]:
            """(ending, bytes) of an image, kept until its last use."""
            if image not in kept:
                try:
                    kept[image] = self.image(image)
                except Unreachable:
                    raise
                except DataError as error:
                    kept[image] = error
            result = kept[image]
            uses[image] -= 1
            if not uses[image]:
                del kept[image]
            if isinstance(result, DataError):
                raise result
            return result

        entries = []
        with self.place.scratch() as folder:
            for shard, stamp in zip(unit.shards, stamps, strict=True):
                lost: list[tuple[str, str, str]] = []
                entry = write_shard(folder, shard.name, _members(shard, fetch, lost))
                entry |= {"kind": shard.kind, "split": shard.split, "inputs_sha256": shard.inputs_sha256()}
                entries.append(entry | ({"lost": lost} if lost else {}) | ({"stamp": stamp} if stamp else {}))
            self.place.check_claim()
            for shard in unit.shards:
                self.place.take(folder / shard.name, index.path_of(folder / shard.name))
        return entries

    def whole(self, planned: Sequence[Shard]) -> dict[str, dict]:
        """Entries of the planned shards that an earlier run finished, from the same inputs, and that are undamaged."""
        begun, there = self.place.entries(), self.place.files.names()
        entries = {}
        for shard in planned:
            entry = begun.get(shard.name)
            if entry is None or entry.get("inputs_sha256") != shard.inputs_sha256():
                continue
            if "stamp" in entry and entry["stamp"] != self.stamp(shard):
                print(f"{shard.name} is packed again: images of it were replaced since", file=sys.stderr, flush=True)
                continue
            # An entry from a manifest does not say which samples it lost: such a shard is packed again.
            told = "lost" in entry or entry["samples"] == len(shard.samples)
            if told and self.place.is_whole(entry, there):
                entries[shard.name] = entry
        return entries

    def stamp(self, shard: Shard) -> str | None:
        """A hash that is another one if an image of the shard was replaced; None where images are no files."""
        if not isinstance(self.source, FromFiles):
            return None
        images = {image for sample in shard.samples for image in sample.images.values()}
        stamps = [[image, self.source.stamp(image)] for image in sorted(images)]
        return hashlib.sha256(manifest.encode(stamps)).hexdigest()

    def image(self, image: str) -> tuple[str, bytes]:
        """(ending, bytes) of an image as it is packed; DataError where it is missing or damaged."""
        data = jpeg_or_png(self.source.image(image))
        pixels = decode_image(data)  # what is packed can be read
        ending = sniff(data) or ""
        return ending, data if self.resize is None else resized(data, ending, pixels, self.resize)


def _members(shard: Shard, fetch, lost: list[tuple[str, str, str]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a tar as write_shard takes them; notes those that cannot be packed."""
    for sample in shard.samples:
        members = {"json": sample.json}
        fault = None
        for role, image in sample.images.items():
            try:
                ending, data = fetch(image)
                members[f"{role}.{ending}"] = data
            except Unreachable:
                raise
            except DataError as error:  # the other images are still asked for, so that their uses are counted
                fault = fault or (sample.id, image, str(error))
        if fault is None:
            yield sample.key, members
        else:
            lost.append(fault)
