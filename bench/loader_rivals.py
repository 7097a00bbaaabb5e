"""The loaders that bench/loader.py compares: `epoch(n)` of each reads, decodes and yields every pair once, shuffled.

They read the same pairs: the first tars of a shard folder, or copies of their bytes in another form. A copy is made
before anything is measured. All but one decode JPEG with simplejpeg and all parse the json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from shards.errors import DataError
from shards.format import index
from shards.order.permutation import locate
from shards.reading.prefetch import Prefetcher
from shards.reading.reader import Folder, Stream

MEMBERS = ["after.jpg", "before.jpg", "json"]
ORDER, OTHER_ORDER = 0, 1  # seeds: loaders that take turns must not find the same bytes in the processor's cache
LOOK_UP = 1024  # positions of the order that are looked up at once
BUFFER = 1000  # samples that webdataset shuffles among
BATCH = 64  # that mosaicml-streaming plans its reading for


class Pair(NamedTuple):
    """One sample: its json, and two images, uint8 (height, width, 3)."""

    record: dict
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Loader:
    """A row of the table. `cores` are those it may use; one with `threads` of its own works also between two pairs.

    `epoch` is None where it cannot run, and `note` says why.
    """

    name: str
    epoch: Callable[[int], Iterator[Pair]] | None
    cores: int = 1
    threads: bool = False
    note: str = ""


@dataclass(frozen=True)
class Data:
    """The training pairs in the first `tars` of a shard folder: the places 0 to count - 1 of `stream`."""

    stream: Stream
    tars: list[Path]
    count: int

    @classmethod
    def open(cls, path: Path, pairs: int) -> Data:
        """Of as many tars as it takes for this many pairs, or of all; DataError where there are none, or no JPEGs."""
        folder = Folder.open(path)
        tars, count = [], 0
        for shard in folder.manifest["shards"]:
            if (shard["kind"], shard["split"]) == ("pair", "train") and count < pairs:
                tars.append(folder.path / shard["name"])
                count += shard["samples"]
        stream = folder.stream("pair", "train")
        for place in range(count):
            if sorted(stream.read(place)) != MEMBERS:
                raise DataError(f"{path}: sample {stream.keys[place]} is not {', '.join(MEMBERS)}: pack pairs of JPEGs")
        if not count:
            raise DataError(f"{path} has no pairs in the split train: give a folder that has")
        return cls(stream, tars, count)

    def places(self, epoch: int, seed: int = ORDER) -> Iterator[int]:
        """The order of an epoch, looked up as it goes."""
        for start in range(epoch * self.count, (epoch + 1) * self.count, LOOK_UP):
            positions = np.arange(start, min(start + LOOK_UP, (epoch + 1) * self.count))
            yield from locate(positions, self.count, seed)[1].tolist()


def loaders(data: Data, scratch: Path) -> list[Loader]:
    """All rows, the bare loop first. Copies of the data are written into the folder `scratch`."""
    return [
        Loader("bare loop", _bare_loop(data)),
        Loader("ours", _ours(data)),
        Loader("ours, 2 threads", _ours_prefetched(data, 2), cores=2, threads=True),
        Loader("webdataset", _webdataset(data, _webdataset_decode)),
        Loader("webdataset, its own decoder", _webdataset(data, "rgb8")),
        _mosaicml_streaming(data, scratch / "mds"),
        Loader("plain files", _plain_files(data, scratch / "files")),
    ]


def _decode(before: bytes, after: bytes, record: bytes) -> Pair:
    return Pair(json.loads(record), simplejpeg.decode_jpeg(before, "RGB"), simplejpeg.decode_jpeg(after, "RGB"))


def _bare_loop(data: Data) -> Callable[[int], Iterator[Pair]]:
    """What must be done at the least: one read a pair at a known offset, and the decoding; no checks at all."""
    samples: list[tuple[int, int, int, list[slice]]] = []  # file, offset, length, members in it by name
    for tar in data.tars:
        file = os.open(tar, os.O_RDONLY)
        rows = index.parse(index.path_of(tar).read_bytes(), tar)
        for _, group in groupby(rows, key=lambda row: row.name.partition(".")[0]):
            members = sorted(group, key=lambda row: row.name)  # after, before, json
            start = min(row.offset for row in members)
            slices = [slice(row.offset - start, row.offset - start + row.length) for row in members]
            samples.append((file, start, max(part.stop for part in slices), slices))

    def epoch(number: int) -> Iterator[Pair]:
        for place in data.places(number, OTHER_ORDER):
            file, offset, length, (after, before, record) = samples[place]
            read = os.pread(file, length, offset)
            yield _decode(read[before], read[after], read[record])

    return epoch


def _ours(data: Data) -> Callable[[int], Iterator[Pair]]:
    def epoch(number: int) -> Iterator[Pair]:
        for place in data.places(number):
            record, images = data.stream.decoded(place)
            yield Pair(record, images["before"], images["after"])

    return epoch


def _ours_prefetched(data: Data, threads: int) -> Callable[[int], Iterator[Pair]]:
    def epoch(number: int) -> Iterator[Pair]:
        with Prefetcher(data.stream.decoded, data.places(number), threads) as samples:
            for record, images in samples:
                yield Pair(record, images["before"], images["after"])

    return epoch


def _webdataset_decode(key: str, data: bytes) -> np.ndarray | None:
    return simplejpeg.decode_jpeg(data, "RGB") if key.endswith(".jpg") else None  # None: it parses the json itself


def _webdataset(data: Data, decoder: str | Callable[[str, bytes], Any]) -> Callable[[int], Iterator[Pair]]:
    from webdataset import WebDataset  # it imports torch

    def epoch(number: int) -> Iterator[Pair]:
        tars = [str(tar) for tar in data.tars]
        for sample in WebDataset(tars, shardshuffle=len(tars), seed=number).shuffle(BUFFER).decode(decoder):
            yield Pair(sample["json"], sample["before.jpg"], sample["after.jpg"])

    return epoch


def _mosaicml_streaming(data: Data, folder: Path) -> Loader:
    name = "mosaicml-streaming"
    if find_spec("streaming") is None:
        return Loader(name, None, note="not installed: pip install -e '.[bench]'")
    from idc.backbone.timm_import import import_timm

    import_timm()  # and so torchvision, which streaming imports, also where its operators are missing
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"before": "bytes", "after": "bytes", "json": "bytes"}) as writer:
        for place in range(data.count):
            members = data.stream.read(place)
            writer.write({"before": members["before.jpg"], "after": members["after.jpg"], "json": members["json"]})
    dataset = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=ORDER, batch_size=BATCH)

    def epoch(number: int) -> Iterator[Pair]:
        for sample in dataset:  # each time another epoch
            yield _decode(sample["before"], sample["after"], sample["json"])

    return Loader(name, epoch, threads=True)


def _plain_files(data: Data, folder: Path) -> Callable[[int], Iterator[Pair]]:
    folder.mkdir()
    for place in range(data.count):
        for suffix, member in data.stream.read(place).items():
            (folder / f"{data.stream.keys[place]}.{suffix}").write_bytes(member)
    stems = [f"{folder}/{key}" for key in data.stream.keys[: data.count]]

    def read(path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def epoch(number: int) -> Iterator[Pair]:
        for place in np.random.default_rng(number).permutation(data.count).tolist():
            stem = stems[place]
            yield _decode(read(f"{stem}.before.jpg"), read(f"{stem}.after.jpg"), read(f"{stem}.json"))

    return epoch
