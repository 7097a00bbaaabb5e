"""What `shards.verify` does: every byte of a shard folder against its manifest, its index and the schema."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO

from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import decode_array
from shards.format.record import ROLES
from shards.format.schema import faults
from shards.format.strict_json import parse_json
from shards.format.tars import BLOCK, Header, crc32c, file_sha256, parse_header
from shards.images.decode import check_header
from shards.processes import pool
from shards.progress import Progress
from shards.reading.object_store import Bucket, Missing, is_url

MOST_FINDINGS = 20  # of one shard that are listed
LARGE = 64 * 2**20  # bytes of shards from which on processes and a progress bar are worth it
CHUNK = 2**20
SHARD_TIME_LIMIT = 3600.0  # seconds to wait for one shard


def verify(folder: str | Path, workers: int = 1) -> list[str]:
    """All findings about a shard folder, one line each; empty where all is well. DataError where it is none.

    `folder` is a path or a URL. A large folder is read by `workers` processes, each with one member in memory; from an
    object store a shard a process is fetched into the folder for temporary files, past any cache.
    """
    bucket = Bucket(str(folder)) if is_url(folder) else None
    contents, altered = open_manifest(folder, bucket)
    findings = [altered] if altered else []
    if bucket is None:
        findings += _check_folder(Path(folder), contents, os.listdir(folder))
    else:
        with _Fetched(bucket, [entry["file"] for entry in manifest.extras(contents).values()]) as local:
            findings += local.renamed(_check_folder(local.path, contents, bucket.names()))
    shards = [
        _Shard(Path(folder) / entry["name"], entry, contents["classes"], "features" in contents, bucket)
        for entry in contents["shards"]
    ]
    keys: dict[str, str] = {}
    for shard, (found, its_keys) in zip(shards, _check_shards(shards, workers), strict=True):
        findings += found[:MOST_FINDINGS]
        if len(found) > MOST_FINDINGS:
            findings.append(f"{shard.shown}: and {len(found) - MOST_FINDINGS} more")
        for key in its_keys:
            if keys.setdefault(key, shard.tar.name) != shard.tar.name:
                findings.append(f"{shard.shown}: sample {key} is also in {keys[key]}")
    return findings


def open_manifest(folder: str | Path, bucket: Bucket | None) -> tuple[dict, str | None]:
    """The manifest, and a finding where it was altered but can be used."""
    if bucket is not None:
        return manifest.parse(bucket.read(manifest.FILE), f"{bucket.url}/{manifest.FILE}")
    path = Path(folder) / manifest.FILE
    if not path.is_file() or path.stat().st_size > manifest.LIMIT:
        return manifest.read(Path(folder)), None  # raises, with the fix
    return manifest.parse(path.read_bytes(), path)


class _Fetched:
    """Objects of a bucket in a folder for temporary files, as far as they are there."""

    def __init__(self, bucket: Bucket, names: Sequence[str]) -> None:
        self._bucket, self._names = bucket, names

    def __enter__(self) -> _Fetched:
        self._folder = tempfile.TemporaryDirectory(prefix="idc-verify-")
        self.path = Path(self._folder.name)
        for name in self._names:
            try:
                self._bucket.download(name, self.path / name)
            except Missing:
                continue  # what looks at the folder says so
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def renamed(self, findings: Iterable[str]) -> list[str]:
        """Findings about the temporary folder, as ones about the bucket."""
        return [finding.replace(str(self.path), self._bucket.url) for finding in findings]


def _check_folder(folder: Path, contents: dict, names: Collection[str]) -> Iterator[str]:
    """What can be said without opening a tar: files beside the shards, sums of counts, the tokenizer."""
    known = {manifest.FILE} | {shard["name"] for shard in contents["shards"]}
    known |= {index.path_of(folder / shard["name"]).name for shard in contents["shards"]}
    for field, entry in manifest.extras(contents).items():
        known.add(entry["file"])
        path = folder / entry["file"]
        if not path.is_file():
            yield f"{path}: missing, and the manifest names it as '{field}'"
        elif file_sha256(path) != entry["sha256"]:
            yield f"{path}: sha256 differs from the manifest"
    for name in sorted(names):
        if name not in known:
            yield f"{folder}/{ascii(name)[1:-1]}: not in the manifest"
    counted = manifest.count_splits(contents["shards"])
    for split in manifest.SPLITS:
        for kind in manifest.KINDS:
            stated = contents["splits"].get(split, {}).get(kind, 0)
            if stated != counted[split][kind]:
                yield (
                    f"{folder / manifest.FILE}: 'splits' says {stated} samples of {kind} in {split}, "
                    f"its shards add up to {counted[split][kind]}"
                )


def _check_shards(shards: list[_Shard], workers: int) -> Iterator[tuple[list[str], list[str]]]:
    """(findings, sample keys) of each shard, in order; in this process where there is little to read."""
    if sum(shard.entry["bytes"] for shard in shards) < LARGE:
        for shard in shards:
            yield shard.check()
        return
    with Progress("verifying", 0, sum(shard.entry["samples"] for shard in shards)) as bar:
        if workers == 1:
            for shard in shards:
                yield shard.check()
                bar.update(shard.entry["samples"])
            return
        try:
            with pool(min(workers, len(shards))) as processes:
                results = [processes.submit(shard.check) for shard in shards]
                for shard, result in zip(shards, results, strict=True):
                    yield result.result(SHARD_TIME_LIMIT)
                    bar.update(shard.entry["samples"])
        except BrokenProcessPool:
            raise DataError("a process that verifies died (out of memory?): try --workers 1") from None
        except TimeoutError:
            raise DataError(
                f"{shard.shown}: not read within {SHARD_TIME_LIMIT:g} s: does the file system hang?"
            ) from None


class _Shard:
    """One tar and its index, checked against each other and the manifest."""

    def __init__(
        self, tar: Path, entry: dict, classes: list[str], is_features: bool, bucket: Bucket | None = None
    ) -> None:
        self.tar, self.entry, self._bucket = tar, entry, bucket
        self.shown = f"{bucket.url}/{tar.name}" if bucket else str(tar)
        self._classes, self._is_features = classes, is_features
        self._findings: list[str] = []
        self._keys: list[str] = []
        self._rows: dict[str, index.Row] | None = None  # of the index, by name; None where it cannot be used
        self._seen: set[str] = set()  # names of members
        self._moved: list[str] = []  # those that lie elsewhere than the index says
        self._sample: dict[str, bytes] = {}  # members of the sample being read

    def check(self) -> tuple[list[str], list[str]]:
        """(findings, keys of the samples)."""
        if self._bucket is None:
            return self._check()
        with _Fetched(self._bucket, [self.tar.name, index.path_of(self.tar).name]) as local:
            self.tar = local.path / self.tar.name
            findings, keys = self._check()
            return local.renamed(findings), keys

    def _check(self) -> tuple[list[str], list[str]]:
        if not self.tar.is_file():
            return [f"{self.tar}: missing, and the manifest lists it"], []
        self._read_index()
        try:
            with open(self.tar, "rb") as file:
                digest = self._walk(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            self._note(f"cannot be read ({error.strerror})")
        else:
            self._compare(digest)
        return self._findings, self._keys

    def _note(self, what: str) -> None:
        self._findings.append(f"{self.tar}: {what}")

    def _read_index(self) -> None:
        path = index.path_of(self.tar)
        try:
            data = index.read(path)
            if hashlib.sha256(data).hexdigest() != self.entry["index_sha256"]:
                self._findings.append(f"{path}: sha256 differs from the manifest")
            self._rows = {row.name: row for row in index.parse(data, path)}
        except FileNotFoundError:
            self._findings.append(f"{path}: missing")
        except OSError as error:
            self._findings.append(f"{path}: cannot be read ({error.strerror})")
        except DataError as error:
            self._findings.append(str(error))

    def _walk(self, file: BinaryIO, size: int) -> str:
        """Checks all members by the tar's own headers, in one pass; returns the SHA-256 of what was read."""
        if size != self.entry["bytes"]:
            self._note(f"{size} bytes, the manifest says {self.entry['bytes']}")
        digest = hashlib.sha256()
        by_place = {row.offset: row for row in (self._rows or {}).values()}
        place = 0
        while (block := file.read(BLOCK)).strip(b"\0"):
            digest.update(block)
            place += BLOCK
            row = by_place.get(place)
            try:
                header = parse_header(block)
            except DataError as error:
                if row is None:
                    self._note(f"byte {place - BLOCK}: {error}")
                    place = min((offset for offset in by_place if offset > place), default=0) - BLOCK
                    if place < 0:
                        break
                    file.seek(place)
                    continue
                self._note(f"member {row.name}: header at byte {place - BLOCK}: {error}")
                header = Header(row.name, row.length)
            if place + header.length > size:
                self._note(f"cut short inside member {header.name}")
                break
            data = file.read(index.padded(header.length))
            digest.update(data)
            self._check_member(header, place, data[: header.length])
            if data[header.length :].strip(b"\0"):
                self._note(f"member {header.name}: the filling behind it is not empty")
            place += len(data)
        else:
            self._check_end(file, digest, size - place)
        self._end_sample()
        return digest.hexdigest()

    def _check_end(self, file: BinaryIO, digest, left: int) -> None:
        """What comes after the last member: at least two empty blocks, and nothing else."""
        if left < 2 * BLOCK:
            self._note("cut short: the empty blocks at its end are missing")
        digest.update(bytes(min(left, BLOCK)))  # the empty block that was read
        left = min(left, self.entry["bytes"])  # of a tar that is longer, no more is read than there should be
        while left > 0 and (data := file.read(min(left, CHUNK))):
            digest.update(data)
            left -= len(data)
            if data.strip(b"\0"):
                self._note("bytes behind its last member are not empty")
                return

    def _check_member(self, header: Header, place: int, data: bytes) -> None:
        """One member against the index; then it goes to its sample."""
        name = header.name
        row = self._rows.get(name) if self._rows is not None else None
        if name in self._seen:
            self._note(f"member {name} comes twice")
        elif self._rows is not None and row is None:
            self._note(f"member {name} is in the tar and not in the index")
        elif row is not None and len(data) != row.length:
            self._note(f"member {name} is {len(data)} bytes, the index says {row.length}")
        elif row is not None and crc32c(data) != row.crc32c:
            self._note(f"member {name}: crc32c differs from the index")
        elif row is not None and place != row.offset:
            self._moved.append(name)
        self._seen.add(name)
        key, _, suffix = name.partition(".")
        if not self._keys or self._keys[-1] != key:
            self._end_sample()
            self._keys.append(key)
        self._sample[suffix] = data

    def _compare(self, digest: str) -> None:
        """What can be said once the whole tar was read."""
        if self._moved:
            self._note(f"{len(self._moved)} members lie elsewhere than the index says, {self._moved[0]} the first")
        for name in self._rows or ():
            if name not in self._seen:
                self._note(f"member {name} is in the index and not in the tar")
        if len(self._keys) != self.entry["samples"]:
            self._note(f"{len(self._keys)} samples, the manifest says {self.entry['samples']}")
        if len(set(self._keys)) < len(self._keys):
            self._note("the members of a sample do not lie together")
        if not self._findings and digest != self.entry["sha256"]:
            self._note("sha256 differs from the manifest though it agrees with its index: both were replaced")

    def _end_sample(self) -> None:
        """Whether a sample has the members its kind and folder ask for, and they hold what their names say."""
        if not self._sample:
            return
        key, have = self._keys[-1], set()
        for suffix, data in self._sample.items():
            role, _, ending = suffix.partition(".")
            try:
                self._check_content(suffix, ending, data)
            except DataError as error:
                self._note(f"member {key}.{suffix}: {error}")
            have.add(role)
        wanted = set(ROLES[self.entry["kind"]]) | (set() if self._is_features else {"json"})
        for role in sorted(wanted - have):
            self._note(f"sample {key} has no {role}")
        for role in sorted(have - wanted):
            self._note(f"sample {key} has a {role} too many")
        self._sample = {}

    def _check_content(self, suffix: str, ending: str, data: bytes) -> None:
        """DataError where a member is not what its name says."""
        if suffix == "json" and not self._is_features:
            found = "; ".join(faults(parse_json(data), self.entry["kind"], self._classes))
            if found:
                raise DataError(found)
        elif ending == "npy" and self._is_features:
            decode_array(data)
        elif ending in ("jpg", "png") and not self._is_features:
            if check_header(data) != ending:
                raise DataError(f"does not begin as a {ending} file does")
        else:
            raise DataError("does not belong in this folder")
