"""Shard folders in object stores, read through a cache of whole shards that the processes of a machine share.

The cache is $IDC_CACHE/shards (without IDC_CACHE: $XDG_CACHE_HOME/idc, else ~/.cache/idc); its tars take at most
$IDC_CACHE_GB gigabytes (50). A folder in it belongs to one URL and one manifest, so that nothing in it is ever out of
date, and a tar gets its name when its bytes are those of the manifest, so that any process may trust what it finds.
Locks are the kernel's (flock): a process that is killed holds none.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shards.errors import DataError, Unreachable
from shards.format import index, manifest
from shards.format.whole_files import PARTIAL, sync, write_whole
from shards.reading.object_store import Bucket, Missing
from shards.reading.room import LOCK, Room, locked

DEFAULT_GB = 50.0
CONNECTIONS = 8  # indexes fetched at a time


def cache_root() -> Path:
    """The folder of everything that can be fetched or made again: $IDC_CACHE, or idc in the user's cache folder."""
    given = os.environ.get("IDC_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idc"


def cache_limit() -> int:
    """Bytes that the cached tars of a machine may take: $IDC_CACHE_GB x 10^9."""
    text = os.environ.get("IDC_CACHE_GB") or str(DEFAULT_GB)
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise DataError(f"IDC_CACHE_GB is {text!r}: it must be a number of gigabytes above 0")
    return int(size * 1e9)


def short_name(url: str) -> str:
    """A folder name for a URL that a person recognises."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", url.partition("://")[2]).strip("-.")[-80:]


class ShardCache:
    """The shard folder at a URL. `manifest` is its manifest, checked; `folder` the local folder with manifest.json, the
    tokenizer, the indexes asked for so far and those of the tars that are in the cache.

    Of this process: `hits` counts tars opened from the cache, `misses` those fetched, `fetched_bytes` their sizes.
    Cheap to pickle; safe under threads, processes and forks.
    """

    def __init__(self, url: str) -> None:
        """Fetches the manifest. DataError naming the URL and the fix where there is no finished shard folder."""
        self._bucket = Bucket(url)
        self.url = self._bucket.url
        self._limit = cache_limit()
        self._root = cache_root() / "shards"
        self._room = Room(self._root, self._limit)
        try:
            data = self._bucket.read(manifest.FILE)
        except Missing:
            raise DataError(
                f"{self.url}: no such bucket, or no {manifest.FILE} there and so no finished shard folder; make it "
                f"with python -m shards.pack SOURCE --out {self.url}"
            ) from None
        self.manifest, altered = manifest.parse(data, f"{self.url}/{manifest.FILE}")
        if altered:
            raise DataError(altered)
        self._entries = {shard["name"]: shard for shard in self.manifest["shards"]}
        digest = hashlib.sha256(self.url.encode() + b"\0" + data).hexdigest()
        self.folder = self._root / f"{short_name(self.url)}-{digest[:12]}"
        self._count_anew()
        small = {manifest.FILE: hashlib.sha256(data).hexdigest()}
        if tokenizer := self.manifest.get("tokenizer"):
            small[tokenizer["file"]] = tokenizer["sha256"]
        self._fetch_small(small)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._count_anew()

    def _count_anew(self) -> None:
        self.hits = self.misses = self.fetched_bytes = 0
        self._seen: set[str] = set()
        self._fetched_again: Counter[str] = Counter()  # bytes, by split
        self._warned = False
        self._lock = threading.Lock()
        self._process = os.getpid()

    def fetch_indexes(self, shards: Sequence[dict]) -> None:
        """Fetches the indexes of these shards (entries of the manifest), where they are not there yet."""
        self._fetch_small({index.path_of(Path(shard["name"])).name: shard["index_sha256"] for shard in shards})

    def open(self, tar: Path) -> int:
        """A descriptor to read a tar of `folder` by, fetched where the cache lacks it.

        It can be read to its end whatever happens to the cache; close it soon, for until then a tar that was evicted
        takes up disk. Raises DataError where the store, the disk or the limit of the cache are in the way, and where
        the bytes in the store are not those of the manifest.
        """
        entry = self._entries[tar.name]
        descriptor = _open_whole(tar, entry["bytes"])
        if descriptor is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = tar.with_name(tar.name + PARTIAL)
                with locked(tar.with_name(tar.name + LOCK), f"fetch {self.url}/{tar.name}", watched=partial):
                    descriptor = _open_whole(tar, entry["bytes"])  # by whoever had the lock
                    if descriptor is None:
                        descriptor = self._fetch(tar, partial, entry)
                        self._count(entry, fetched=True)
                        return descriptor
            except OSError as error:
                raise Unreachable(
                    f"{self.folder}: {error.strerror or error} while {tar.name} ({_gb(entry['bytes'])}) was fetched; "
                    f"make room, or set IDC_CACHE to a folder elsewhere or IDC_CACHE_GB (now {_gb(self._limit)}) lower"
                ) from None
        self._count(entry, fetched=False)
        return descriptor

    def _fetch(self, tar: Path, partial: Path, entry: dict) -> int:
        """Fetches a tar, whose lock is held, into the cache; a descriptor of it."""
        need = entry["bytes"]
        if need > self._limit:
            raise Unreachable(
                f"IDC_CACHE_GB is {self._limit / 1e9:g} and {self.url}/{tar.name} alone takes {_gb(need)}: set it "
                f"higher, to the size of the split at best"
            )
        for _ in range(2):  # a transfer can go wrong; what is wrong twice is wrong in the store
            with self._room.reserved(partial, need) as file:
                digest, size = hashlib.sha256(), 0
                for chunk in self._bucket.chunks(tar.name):
                    size += len(chunk)
                    if size > need:
                        break
                    digest.update(chunk)
                    file.write(chunk)
                    file.flush()  # those who wait see that it grows
                if size == need and digest.hexdigest() == entry["sha256"]:
                    sync(file)
                    _note_use(file.fileno())
                    os.replace(partial, tar)
                    return os.dup(file.fileno())
        raise DataError(
            f"{self.url}/{tar.name}: its bytes are not those that {manifest.FILE} knows (size or sha256 differs, "
            f"fetched twice); pack it again with python -m shards.pack SOURCE --out {self.url}"
        )

    def _fetch_small(self, wanted: dict[str, str]) -> None:
        """Fetches files, given with their SHA-256, that are not there yet."""

        def fetch(name: str) -> None:
            data = self._bucket.read(name)
            if hashlib.sha256(data).hexdigest() != wanted[name]:
                raise DataError(
                    f"{self.url}/{name}: its bytes are not those that {manifest.FILE} knows (sha256 differs); pack it "
                    f"again with python -m shards.pack SOURCE --out {self.url}"
                )
            write_whole(self.folder / name, data)

        if all((self.folder / name).is_file() for name in wanted):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / f"small{LOCK}", f"fetch the indexes of {self.url}", watched=self.folder):
                missing = [name for name in wanted if not (self.folder / name).is_file()]
                with ThreadPoolExecutor(CONNECTIONS) as pool:
                    list(pool.map(fetch, missing))
        except OSError as error:
            raise Unreachable(
                f"{self.folder}: {error.strerror or error}; set IDC_CACHE to a folder elsewhere"
            ) from None

    def _count(self, entry: dict, fetched: bool) -> None:
        if self._process != os.getpid():
            self._count_anew()  # after a fork: a thread of the parent may have held the lock
        with self._lock:
            again = fetched and entry["name"] in self._seen
            self._seen.add(entry["name"])
            self.hits += not fetched
            self.misses += fetched
            self.fetched_bytes += entry["bytes"] * fetched
            if not again or self._warned:
                return
            split = entry["split"]
            self._fetched_again[split] += entry["bytes"]
            size = sum(shard["bytes"] for shard in self._entries.values() if shard["split"] == split)
            self._warned = warn = self._fetched_again[split] > size
        if warn:
            print(
                f"warning: {self.url}: shards are evicted and fetched again and again: a random order needs its whole "
                f"split in the cache; set IDC_CACHE_GB (now {self._limit / 1e9:g}) to {math.ceil(size / 1e9)} or more",
                file=sys.stderr,
                flush=True,
            )


def _open_whole(tar: Path, size: int) -> int | None:
    """A descriptor of a cached tar, noted as used now; None where it is not there, or was cut."""
    try:
        descriptor = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size != size:
        os.close(descriptor)
        return None
    _note_use(descriptor)
    return descriptor


def _note_use(descriptor: int) -> None:
    now = time.time_ns()  # the kernel's own stamp is 4 ms coarse, in which several tars are used
    os.utime(descriptor, ns=(now, now))


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
