"""Grid features of a frozen backbone, cached in a shard folder of the same keys: what `cluster.features` does.

Finished tars are kept when the same is asked for again. manifest.json is written last.

On CPUs a process a core, each of one thread. On GPUs a process a GPU, in which threads decode for it; it ends with the
work, and this process itself opens no CUDA context, which would take half a gigabyte of the GPU from the training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import multiprocessing
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch

from cluster.batches.feature_lock import SCRATCH, finished_entry, held, require_room, require_same
from idc.backbone.backbone import Backbone
from idc.backbone.weights import DEFAULT_BACKBONE, BackboneError, packaged_weights
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import encode_array
from shards.format.tars import file_sha256, write_shard
from shards.format.whole_files import sync_folder
from shards.images.decode import decode_image
from shards.processes import pool
from shards.progress import Progress
from shards.reading.reader import Folder, Stream

BATCH = 64  # images decoded before the backbone runs on them, or as many as a GPU takes at once
STALL_S = 3600.0  # a batch of images takes seconds
LOOK_S = 0.5  # between two looks at how many are done

# Of a worker process: built once in it; and the images that all processes have done, which this one adds to.
_extractor: Extractor | None = None
_count: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Extraction:
    """What features are made with; plain values, so that worker processes can be told."""

    backbone: str = DEFAULT_BACKBONE  # timm model
    weights: str = ""  # local file; "" = a pip package's or the hub's
    size: tuple[int, int] = (128, 160)  # height, width in pixels that images are fitted into
    strides: tuple[int, ...] = ()  # levels, finest first; () = 8 and 16 where the model has both, else its last
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")

    def build(self) -> Backbone:
        """The backbone, made once for several folders. DataError with the fix where it cannot be had."""
        return _build(self)

    def on(self, device: str) -> Extraction:
        """The same on another device."""
        return dataclasses.replace(self, device=device)

    def devices(self, workers: int) -> list[str]:
        """The device of each process: this one for each of the workers, or every GPU once."""
        if self.device != "cuda":
            return [self.device] * (workers if self.device == "cpu" else 1)
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cuda"]


@lru_cache(maxsize=1)
def _build(extraction: Extraction) -> Backbone:
    try:
        return Backbone(extraction.backbone, extraction.weights, extraction.size, extraction.strides, extraction.device)
    except BackboneError as error:
        raise DataError(str(error)) from None


class Extractor:
    """A backbone on one device, and the threads that decode and fit images for it; 1: the caller's own."""

    def __init__(self, backbone: Backbone, threads: int = 1) -> None:
        self._backbone, self.precision = backbone, backbone.precision
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self.batch = max(BATCH, backbone.chunk)

    def features(self, images: Sequence[tuple[str, bytes]]) -> np.ndarray:
        """B images as (name, bytes of JPEG or PNG) -> float16 (B, N, F). DataError where one cannot be decoded."""
        each = self._threads.map(self._canvas, images) if self._threads else map(self._canvas, images)
        return self._backbone.features_of_canvases(list(each)).numpy()

    def _canvas(self, image: tuple[str, bytes]) -> np.ndarray:
        name, data = image
        try:
            return self._backbone.prepare(decode_image(data))  # neither holds the interpreter's lock for long
        except DataError as error:
            raise DataError(f"{name}: {error}") from None


def cache_features(shards: str | Path, out: str | Path, extraction: Extraction, workers: int = 1) -> Folder:
    """Makes the feature folder `out` of the image folder `shards`, or finishes it; returns it opened.

    Nothing is done where it is finished already; where another process makes it, it is waited for. Each worker is a
    process of one thread; tars are the same for any number of workers. Raises DataError where `out` holds something
    else.
    """
    source, out = Folder.open(shards), Path(out)
    if "features" in source.manifest:
        raise DataError(f"{source.location} holds features already; name the folder of images that they were made from")
    if workers < 1:
        raise DataError(f"--workers is {workers}; it must be at least 1")
    made = known(out, extraction)
    if made is not None and made["of"] == source.sha256():
        return Folder.open(out)
    backbone = extraction.on("cpu").build()  # also where a GPU computes: it is described here, not run
    description = backbone.describe() | {"of": source.sha256()}
    if not _is_finished(out, description):
        with held(out, description):
            if not _is_finished(out, description):
                _make(source, out, extraction, backbone, workers, description)
    return Folder.open(out)


def known(out: Path, extraction: Extraction) -> dict | None:
    """What the finished folder `out` says of its features, if its backbone is this one beyond doubt; else None.

    So it is not built for it, which takes seconds: the same name and sizes, the same weight file, the same timm.
    """
    source = _source(extraction)
    if source is None or not (out / manifest.FILE).exists():
        return None
    made = Folder.open(out).manifest.get("features") or {}
    asked = {"backbone": extraction.backbone, "size": list(extraction.size)}
    same = made.get("made_with") == source and all(made.get(key) == value for key, value in asked.items())
    return made if same else None


def _source(extraction: Extraction) -> dict | None:
    """What a backbone is built from: its weight file, the version of timm, the levels that were asked for.

    None where there is no such file.
    """
    path = extraction.weights or packaged_weights(extraction.backbone)
    if not path or not Path(path).is_file():
        return None
    versions = {"weight_file_sha256": file_sha256(Path(path)), "timm": importlib.metadata.version("timm")}
    return versions | {"strides": list(extraction.strides)}


def _is_finished(out: Path, description: dict) -> bool:
    if not (out / manifest.FILE).exists():
        return False
    require_same(Folder.open(out).manifest.get("features"), description, out)
    return True


def _make(
    source: Folder, out: Path, extraction: Extraction, backbone: Backbone, workers: int, description: dict
) -> None:
    """Makes what is not there yet of a folder that is held."""
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for shard in source.manifest["shards"]:
        # pairs-train-000003.tar and photos-train-000003.tar come from the same scenes and share images.
        groups[shard["split"], shard["name"].rpartition("-")[2]].append(shard)
    entries: dict[str, dict] = {}
    for key, group in list(groups.items()):
        kept = [entry for shard in group if (entry := finished_entry(out, shard)) is not None]
        if len(kept) == len(group):
            entries |= {entry["name"]: entry for entry in kept}
            del groups[key]
    images = sum(_images(shard) for group in groups.values() for shard in group)
    require_room(out, images, backbone.cells, backbone.dim)
    with Progress(f"features {out.name}", 0, images, "image") as progress:
        for precision, group_entries in _run(
            source, out, extraction, backbone, list(groups.values()), workers, progress.update
        ):
            description["precision"] = precision
            entries |= {entry["name"]: entry for entry in group_entries}
    copied = {name: source.manifest[name] for name in ("source", "options", "splits", "classes", "dropped")}
    made_with = {"made_with": _source(extraction)}
    listed = [entries[shard["name"]] for shard in source.manifest["shards"]]
    sync_folder(out)  # the tars, before the manifest that names them
    manifest.write(out, {"schema": manifest.SCHEMA, **copied, "shards": listed, "features": description | made_with})


def open_features(path: str | Path, shards: Folder) -> Folder:
    """A finished feature folder of exactly this image folder; DataError with the fix otherwise."""
    folder = Folder.open(path)
    if "features" not in folder.manifest:
        raise DataError(
            f"{folder.path} holds images and no features; make them with {_command(shards.location, '...')}"
        )
    if folder.manifest["features"].get("of") != shards.sha256():
        raise DataError(
            f"{folder.path} was made from other images than those of {shards.location}; delete it and run "
            + _command(shards.location, folder.path)
        )
    return folder


def _run(
    source: Folder, out: Path, extraction: Extraction, backbone: Backbone, groups: list[list[dict]], workers: int,
    count: Callable[[int], None],
) -> Iterator[tuple[str, list[dict]]]:  # fmt: skip
    """The precision and the manifest entries of each group of tars, as they are finished; `count` is told of images."""
    global _extractor, _count
    if not groups:
        return
    if extraction.device.startswith("cuda") and not torch.cuda.is_available():
        raise DataError(f"--device {extraction.device}: torch finds no GPU on this machine; give --device cpu")
    devices = extraction.devices(workers)[: len(groups)]
    if extraction.device == "cpu" and (workers == 1 or len(groups) == 1):
        _extractor, _count, threads = Extractor(backbone), count, torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for group in groups:
                yield _write_group(source, out, group)
        finally:
            torch.set_num_threads(threads)
            _extractor = _count = None
        return
    threads = 1 if extraction.device == "cpu" else max(workers // len(devices), 1)
    yield from _run_processes(source, out, extraction, groups, devices, threads, count)


def _run_processes(
    source: Folder, out: Path, extraction: Extraction, groups: list[list[dict]], devices: list[str], threads: int,
    count: Callable[[int], None] = lambda images: None,
) -> Iterator[tuple[str, list[dict]]]:  # fmt: skip
    """The same with a process for each of the devices, in which `threads` decode."""
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()  # each process takes one
    for device in devices:
        free.put(device)
    made = context.Value("q", 0)  # images
    try:
        with pool(len(devices), _start_worker, (extraction, free, threads, made)) as processes:
            pending: set[Future[tuple[str, list[dict]]]]
            pending = {processes.submit(_write_group, source, out, group) for group in groups}
            told, since = 0, time.monotonic()
            while pending:
                done, pending = wait(pending, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                if done or made.value > told:
                    since = time.monotonic()
                elif time.monotonic() - since > STALL_S:
                    raise DataError(f"no features were made in {STALL_S:.0f} s; run the same command again")
                count(made.value - told)
                told = made.value
                for future in done:
                    yield future.result()
            count(made.value - told)
            processes.shutdown()
    except BrokenProcessPool:
        raise DataError("a worker process died (out of memory?); run again with fewer --workers: it goes on") from None


def _start_worker(extraction: Extraction, free: SimpleQueue, threads: int, made: Synchronized[int]) -> None:
    """On CPUs, two processes of one thread each give 20 % more images a second than one of two threads."""
    global _extractor, _count
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    _extractor = Extractor(extraction.on(free.get()).build(), threads)

    def add(images: int) -> None:
        with made.get_lock():
            made.value += images

    _count = add


def _write_group(source: Folder, out: Path, group: list[dict]) -> tuple[str, list[dict]]:
    """Writes the feature tars of image tars that share images; returns the precision and their manifest entries."""
    assert _extractor is not None
    streams = [Stream(source, [shard]) for shard in group]
    uses: Counter[bytes] = Counter()
    for stream in streams:
        for i in range(len(stream)):
            uses.update(_digest(data) for data in _image_members(stream, i).values())
    entries = []
    shared: dict[bytes, bytes] = {}  # .npy bytes of images that are needed again; dropped after their last use
    for shard, stream in zip(group, streams, strict=True):
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=out, ignore_cleanup_errors=True) as own:
            entry = write_shard(Path(own), shard["name"], _samples(_extractor, stream, uses, shared))
            for name in (index.path_of(Path(shard["name"])).name, shard["name"]):  # the tar last: it counts
                os.replace(Path(own, name), out / name)
        entries.append({**entry, "kind": shard["kind"], "split": shard["split"]})
    return _extractor.precision, entries


def _samples(
    extractor: Extractor, stream: Stream, uses: Counter[bytes], shared: dict[bytes, bytes]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {"before.npy": bytes, ...}) of a stream, each distinct image computed once."""
    waiting: list[tuple[str, dict[str, bytes]]] = []  # key, member -> digest
    images: dict[bytes, tuple[str, bytes]] = {}
    for i in range(len(stream)):
        digests = {}
        for suffix, data in _image_members(stream, i).items():
            digest = digests[suffix.partition(".")[0] + ".npy"] = _digest(data)
            if digest not in shared and digest not in images:
                images[digest] = f"{stream.keys[i]}.{suffix}", data
        waiting.append((stream.keys[i], digests))
        if len(images) >= extractor.batch or i == len(stream) - 1:
            try:
                features = extractor.features(list(images.values()))
            except DataError as error:
                raise stream.folder.damaged(f"{stream.folder.path}: {error}") from None
            for digest, array in zip(images, features, strict=True):
                shared[digest] = encode_array(array)
            for key, members in waiting:
                yield key, {name: shared[digest] for name, digest in members.items()}
                for digest in members.values():
                    uses[digest] -= 1
                    if not uses[digest]:
                        del shared[digest]
            if _count is not None:
                _count(sum(len(members) for _, members in waiting))
            waiting, images = [], {}


def _image_members(stream: Stream, i: int) -> dict[str, bytes]:
    return {suffix: data for suffix, data in stream.read(i).items() if suffix.endswith((".jpg", ".png"))}


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _images(shard: dict) -> int:
    return shard["samples"] * (2 if shard["kind"] == "pair" else 1)


def _command(shards: object, out: object) -> str:
    return f"python -m cluster.features {shards} --out {out}"
