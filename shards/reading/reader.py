"""Reads shard folders: any sample by one positioned read, checksum verified, in any order, from any thread."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import decode_array
from shards.format.retries import retried
from shards.format.strict_json import parse_json
from shards.format.tars import crc32c
from shards.images.decode import decode_image
from shards.reading.cache import ShardCache
from shards.reading.object_store import is_url
from shards.reading.prefetch import Prefetcher

__all__ = ["Folder", "Prefetcher", "Stream", "decode_array", "decode_image"]

IMAGES, ARRAYS = (".jpg", ".png"), (".npy",)  # endings of the members that decode to images, to arrays
Decode = Callable[[str, bytes], np.ndarray]  # of a member's role and bytes
OPEN_FILES = 256  # tars kept open by one folder; ulimit -n is often 1024


class Folder:
    """A finished shard folder, of images or of features.

    `manifest` is manifest.json as a dict, checked; `path` the folder; `location` what opens it anywhere. For a folder
    in an object store `location` is its URL, `path` the local folder of its small files, and `cache` where its tars are
    fetched to, else None. Cheap to pickle: files are opened at the first read, once in each process.
    """

    def __init__(self, path: Path, manifest: dict, cache: ShardCache | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.cache = cache
        self.location: str | Path = cache.url if cache else path
        # A tar that is kept open could not be evicted: from a cache it is opened for each read, which takes 15 us.
        self._files = _Files(cache.open, keep=0) if cache else _Files()

    @classmethod
    def open(cls, location: str | Path) -> Folder:
        """Opens a folder by its path or URL; DataError naming the file and the fix where it is not one."""
        if is_url(location):
            cache = ShardCache(str(location))
            return cls(cache.folder, cache.manifest, cache)
        path = Path(location)
        return cls(path, manifest.read(path))

    def stream(self, kind: str, split: str) -> Stream:
        """All samples of a kind ("pair", "photo", "class") in a split ("train", "val", "test"), in packing order.

        Raises DataError where the folder's indexes or tar sizes disagree with its manifest.
        """
        if kind not in manifest.KINDS or split not in manifest.SPLITS:
            raise DataError(
                f"no stream {kind!r} of {split!r}: kinds are {', '.join(manifest.KINDS)}, "
                f"splits {', '.join(manifest.SPLITS)}"
            )
        return Stream(self, [s for s in self.manifest["shards"] if s["kind"] == kind and s["split"] == split])

    def sha256(self) -> str:
        """The SHA-256 of manifest.json: what a feature folder records of the image folder it was made from."""
        path = self.path / manifest.FILE
        return hashlib.sha256(retried(path.read_bytes, path)).hexdigest()

    def damaged(self, what: str) -> DataError:
        """An error about this folder's files, ending in what to do."""
        if self.cache:
            return DataError(
                f"{what}; delete {self.path}, which is fetched again, and run python -m shards.verify {self.location}"
            )
        return DataError(f"{what}; run python -m shards.verify {self.path}, then pack the folder again")


class Stream:
    """The samples of one kind and split. `keys` in packing order; index i of every method is a place in it."""

    def __init__(self, folder: Folder, shards: list[dict]) -> None:
        self.folder = folder
        self.keys: list[str] = []
        if folder.cache:
            folder.cache.fetch_indexes(shards)
        self._tars = [folder.path / shard["name"] for shard in shards]
        self._suffixes: list[str] = []
        rows: list[tuple[int, int, int, int]] = []
        first_rows: list[int] = []
        tar_of_sample: list[int] = []
        for number, shard in enumerate(shards):
            before = len(self.keys)
            for row in _shard_rows(folder, shard):
                key, _, suffix = row.name.partition(".")
                if len(self.keys) == before or key != self.keys[-1]:
                    self.keys.append(key)
                    first_rows.append(len(rows))
                    tar_of_sample.append(number)
                if suffix not in self._suffixes:
                    self._suffixes.append(suffix)
                rows.append((self._suffixes.index(suffix), row.offset, row.length, row.crc32c))
            if len(self.keys) - before != shard["samples"]:
                raise folder.damaged(
                    f"{self._tars[number]}: the index has {len(self.keys) - before} samples, "
                    f"the manifest {shard['samples']}"
                )
        self._tar = np.array(tar_of_sample, dtype=np.int32)
        self._first = np.array([*first_rows, len(rows)], dtype=np.int64)
        # A member a row: number of its suffix, offset, length, crc32c. One array, for a read takes rows of all four.
        self._rows = np.array(rows, dtype=np.int64).reshape(-1, 4)
        self._image_roles, self._array_roles = (
            {suffix: suffix.partition(".")[0] for suffix in self._suffixes if suffix.endswith(endings)}
            for endings in (IMAGES, ARRAYS)
        )
        self._places: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, key: str) -> int:
        """The index of a key; DataError where the stream has none such."""
        if self._places is None:
            self._places = {name: place for place, name in enumerate(self.keys)}
        place = self._places.get(key)
        if place is None:
            raise DataError(f"{self.folder.path} has no sample {key!r} in this split")
        return place

    def read(self, i: int, suffixes: Collection[str] | None = None) -> dict[str, bytes]:
        """The members of sample i by suffix ("before.jpg", "json", ...), or those of `suffixes` alone.

        Raises DataError naming the tar and the member where bytes are missing or damaged.
        """
        first, last = self._first[i : i + 2].tolist()
        rows = self._rows[first:last].tolist()
        if suffixes is not None:
            rows = [row for row in rows if self._suffixes[row[0]] in suffixes]
        if not rows:
            return {}
        tar = self._tars[self._tar[i]]
        start = rows[0][1]
        data = self.folder._files.read(tar, start, rows[-1][1] + rows[-1][2] - start)
        members = {}
        for number, offset, length, crc in rows:
            suffix = self._suffixes[number]
            member = data[offset - start : offset - start + length]
            if len(member) != length:
                raise self.folder.damaged(f"{tar} ends before member {self.keys[i]}.{suffix}: it is cut short")
            if crc32c(member) != crc:
                raise self.folder.damaged(f"{tar}: member {self.keys[i]}.{suffix} is damaged (crc32c differs)")
            members[suffix] = member
        return members

    def sample(self, i: int) -> tuple[dict, dict[str, bytes]]:
        """(the sample's parsed json, its other members as bytes by suffix)."""
        members = self.read(i)
        return self._parse(i, members.pop("json", None)), members

    def metadata(self, i: int) -> dict:
        """The sample's parsed json alone: captions, negatives, labels."""
        return self._parse(i, self.read(i, ("json",)).get("json"))

    def decoded(self, i: int) -> tuple[dict, dict[str, np.ndarray]]:
        """(the sample's parsed json, its decoded images by role): what `metadata` and `images` give, by one read."""
        record, members = self.sample(i)
        return record, self._decode(i, members, self._image_roles, _decode_image)

    def images(self, i: int, decode: Decode | None = None) -> dict[str, np.ndarray]:
        """The sample's decoded images by role ("before", "after" or "photo"): uint8 of shape (height, width, 3).

        decode: what makes something else of (role, bytes); a DataError of it is told with the sample's name.
        """
        return self._decode(i, self.read(i, self._image_roles), self._image_roles, decode or _decode_image)

    def arrays(self, i: int) -> dict[str, np.ndarray]:
        """The sample's arrays by role, from a feature folder: read-only, e.g. float16 of shape (cells, channels)."""
        return self._decode(i, self.read(i, self._array_roles), self._array_roles, _decode_array)

    def _decode(
        self, i: int, members: dict[str, bytes], roles: dict[str, str], decode: Decode
    ) -> dict[str, np.ndarray]:
        decoded = {}
        try:
            for suffix, role in roles.items():
                if suffix in members:
                    decoded[role] = decode(role, members[suffix])
        except DataError as error:
            raise self.folder.damaged(
                f"{self._tars[self._tar[i]]}: sample {self.keys[i]}, member {self.keys[i]}.{suffix}: {error}"
            ) from None
        if not decoded:
            raise DataError(
                f"{self._tars[self._tar[i]]}: sample {self.keys[i]} has only {', '.join(members) or 'other members'}; "
                f"images are in image folders, arrays in feature folders"
            )
        return decoded

    def _parse(self, i: int, data: bytes | None) -> dict:
        if data is None:
            raise DataError(f"{self._json_of(i)} is not there; captions and labels are in the image folder")
        try:
            parsed = parse_json(data)
        except DataError as error:
            raise self.folder.damaged(f"{self._json_of(i)}: {error}") from None
        if not isinstance(parsed, dict):
            raise self.folder.damaged(f"{self._json_of(i)} is not a JSON object")
        return parsed

    def _json_of(self, i: int) -> str:
        return f"{self._tars[self._tar[i]]}: member {self.keys[i]}.json"


def _decode_image(role: str, data: bytes) -> np.ndarray:
    return decode_image(data)


def _decode_array(role: str, data: bytes) -> np.ndarray:
    return decode_array(data)


def _shard_rows(folder: Folder, shard: dict) -> list[index.Row]:
    """The index of one shard, checked against the manifest and the size of the tar."""
    tar = folder.path / shard["name"]
    path = index.path_of(tar)
    try:
        # A cache keeps no tar of another size.
        size = shard["bytes"] if folder.cache else retried(tar.stat, tar).st_size
        data = retried(lambda: index.read(path), path)
    except OSError as error:
        raise folder.damaged(f"{error.filename} cannot be read ({error.strerror})") from None
    if size != shard["bytes"]:
        raise folder.damaged(f"{tar} has {size} bytes and the manifest says {shard['bytes']}")
    if hashlib.sha256(data).hexdigest() != shard["index_sha256"]:
        raise folder.damaged(f"{path} is not the index the manifest knows (sha256 differs)")
    rows = index.parse(data, path)
    end = 0
    for row in rows:
        if row.offset < end or row.offset + row.length > size:
            raise folder.damaged(f"{path}: member {row.name} lies outside of the tar or upon another member")
        end = row.offset + row.length
    return rows


class _OpenTar:
    """A file descriptor that closes when nobody reads from it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _open_local(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class _Files:
    """The open tars of a folder, the least recently used closed past `keep`. Safe under threads, fork and spawn.

    Positioned reads share no offset, so threads, and children that inherit a descriptor, do not disturb each other.
    """

    def __init__(self, open_tar: Callable[[Path], int] = _open_local, keep: int | None = None) -> None:
        self._open_tar = open_tar
        self._keep = keep
        self._start()

    def _start(self) -> None:
        self._open: OrderedDict[Path, _OpenTar] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict:
        return {"_open_tar": self._open_tar, "_keep": self._keep}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends. Unreachable where its disk fails."""
        if self._process != os.getpid():
            self._start()  # after a fork: a thread of the parent may have held the lock
        try:
            return retried(lambda: self._read(path, offset, length), path)
        except OSError as error:
            raise DataError(f"{path} cannot be read at byte {offset} ({error.strerror})") from None

    def _read(self, path: Path, offset: int, length: int) -> bytes:
        with self._lock:
            file = self._open.get(path)
            if file is not None:
                self._open.move_to_end(path)
        if file is None:  # without the lock: fetching one tar must not hold up those who read others
            file = _OpenTar(self._open_tar(path))
            with self._lock:
                self._open[path] = file
                if len(self._open) > (OPEN_FILES if self._keep is None else self._keep):
                    self._open.popitem(last=False)
        try:
            data = os.pread(file.descriptor, length, offset)
            while len(data) < length and (more := os.pread(file.descriptor, length - len(data), offset + len(data))):
                data += more
        except OSError:
            with self._lock:  # a stale handle stays stale: the next attempt opens the file anew
                self._open.pop(path, None)
            raise
        return data
