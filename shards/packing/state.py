"""Where a packing goes, and its state there, so that an interrupted packing goes on where it was.

PLACE/.packing holds the options, the token of the run and one entry for each finished shard; it goes away when the
manifest is written. PLACE is a folder, or the URL of a bucket: there the same files are objects.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.format import index, manifest
from shards.format.tars import file_sha256
from shards.packing.disk import Disk
from shards.reading.object_store import Bucket, is_url

STATE = ".packing"
_IDENTITY, _RUN, _LOCK, _ENTRY = "identity.json", "run", "lock", ".tar.json"


class Place:
    """A shard folder to be, at a path or a URL. It goes to the workers, which write into it while it is claimed."""

    def __init__(self, where: str | Path, run: str = "", kept: Mapping[str, str] | None = None) -> None:
        self.where = where
        self.remote = is_url(where)
        self.run = run  # the token of the packing that has claimed the place
        self.kept = dict(kept or {})  # SHA-256 of the files that a manifest which is there vouches for
        self.files: Bucket | Disk
        self.state: Bucket | Disk
        if self.remote:
            self.files = Bucket(str(where))
            self.state = Bucket(f"{self.files.url}/{STATE}")
        else:
            self.files, self.state = Disk(Path(where)), Disk(Path(where) / STATE)

    def __reduce__(self) -> tuple:
        # A worker may run in another folder.
        return Place, (self.where if self.remote else Path(self.where).absolute(), self.run, self.kept)

    def __str__(self) -> str:
        return str(self.where)

    def finished(self, identity: dict) -> dict | None:
        """The manifest of what is complete, whole and packed with these options; None where work is left."""
        there = self.files.names()
        if manifest.FILE not in there:
            return None
        contents, altered = self._manifest()
        _refuse_other(self.where, {field: contents.get(field) for field in identity}, identity)
        for extra in manifest.extras(contents).values():
            if not (extra["file"] in there and _sha256(self.files.read(extra["file"])) == extra["sha256"]):
                return None
        if altered or not all(self.is_whole(entry, there) for entry in contents["shards"]):
            return None
        self._remove_state()  # of a run that was killed after its manifest was written
        return contents

    def is_whole(self, entry: dict, there: set[str]) -> bool:
        """Whether a shard and its index are among the names `there` and as they were written.

        By their bytes; a tar in a bucket by its size, for an object is written whole or not at all.
        """
        tar = Path(entry["name"])
        rows = index.path_of(tar).name
        if not {tar.name, rows} <= there or _sha256(self.files.read(rows)) != entry["index_sha256"]:
            return False
        if isinstance(self.files, Disk):
            return file_sha256(self.files.path / tar) == entry["sha256"]
        return self.files.size(tar.name) == entry["bytes"]

    @contextmanager
    def claimed(self, identity: dict) -> Iterator[None]:
        """Takes the place for one packing with these options, and clears its state away when that has ended well."""
        is_new = isinstance(self.files, Disk) and not self.files.path.exists()
        there = self.files.names() - {STATE}
        begun = self.state.names()
        if not begun and manifest.FILE not in there and not all(_is_ours(name, there) for name in there):
            raise DataError(f"{self} has other files in it: choose another --out, or an empty folder")
        with self._locked():
            self._open_state(identity)
            try:
                yield
            except Exception:
                with suppress(DataError, OSError):  # what went wrong is said already
                    self._leave_nothing(there, is_new)
                raise
            finally:
                self.run = ""
            self._remove_state()

    def check_claim(self) -> None:
        """For workers: DataError where they do not see the place, or a later packing has taken it over."""
        try:
            run = self.state.read(_RUN).decode()
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.remote:
                raise
            raise DataError(
                f"{self} is not here ({error.strerror}): --out must be a folder that all workers see, or a URL"
            ) from None
        if run != self.run:
            raise DataError(f"{self}: another packing has taken over; wait for it, or choose another --out")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own for files that `take` will put in their place; it and what is left in it go away.

        Workers that outlive a killed packing for a moment so never write into a file of the next one.
        """
        parent = self.state.path if isinstance(self.state, Disk) else self._scratch_parent()
        if self.remote:
            parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unit-", dir=parent, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def take(self, *paths: Path) -> None:
        """Moves finished files into their place; an upload counts once the bucket says the right size.

        A file that is made again with the bytes it had leaves the folder as it is, readable at every moment. Before
        others come, the manifest goes: it says nothing true any more.
        """
        for path in paths:
            size = path.stat().st_size
            if path.name in self.kept and file_sha256(path) != self.kept[path.name]:
                self._unfinish()
            self.files.upload(path, path.name)
            if self.remote:
                self._confirm(path.name, size)
                path.unlink()

    def entries(self) -> dict[str, dict]:
        """The manifest entries of the shards that an earlier run finished, by the shard's name."""
        names = sorted(name for name in self.state.names() if name.endswith(_ENTRY))
        return {name.removesuffix(".json"): self._read_state(name) for name in names}

    def note_finished(self, entry: dict) -> None:
        """Remembers a shard that a worker has finished, once it is seen from here too."""
        self._confirm(entry["name"], entry["bytes"])
        self._write_state(entry["name"] + ".json", entry)

    def clear(self, planned: set[str]) -> None:
        """Removes what a run with another plan, or one that was killed, left in the place."""
        there = self.files.names()
        tars = {name: name.replace(index.ENDING, ".tar") for name in there if _is_ours(name, there)}
        if any(tar not in planned and name in self.kept and _is_shard(tar) for name, tar in tars.items()):
            self._unfinish()
        for name, tar in tars.items():
            if tar not in planned and name not in self.kept:
                self.files.delete(name)

    def publish(self, contents: dict) -> None:
        """Writes the manifest, which makes the folder a finished one, and removes what it does not name."""
        self.check_claim()
        if isinstance(self.files, Disk):
            self.files.settle()  # the files that it names, before it
        with self.scratch() as folder:
            manifest.write(folder, contents)
            self.take(folder / manifest.FILE)
        if isinstance(self.files, Disk):
            self.files.settle()
        self.kept = {}
        extras = {extra["file"] for extra in manifest.extras(contents).values()}
        self.clear({entry["name"] for entry in contents["shards"]} | extras)

    def _unfinish(self) -> None:
        self.files.delete(manifest.FILE)
        self.kept = {}

    def _confirm(self, name: str, size: int) -> None:
        try:
            seen = self.files.size(name)
        except (DataError, FileNotFoundError):
            seen = None
        if seen != size:
            found = "it is not there" if seen is None else f"it has {seen}"
            raise DataError(
                f"{self}: a worker wrote {name} with {size} bytes and {found}: all workers must see the same place "
                f"(memory:// takes --workers 1)"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds a folder's lock. A bucket has none: there, and across machines, the run's token ends the earlier."""
        if isinstance(self.state, Bucket):
            shutil.rmtree(self._scratch_parent(), ignore_errors=True)
            yield
            return
        try:
            self.state.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.state.path / _LOCK, "w")
        except OSError as error:
            raise DataError(f"{self} cannot be written to ({error.strerror}): choose another --out") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"{self}: another process is packing into it; wait for it, or choose another --out"
                ) from None
            yield

    def _open_state(self, identity: dict) -> None:
        """Checks that what was begun has the same options. What was complete and is damaged counts as begun, too.

        Its manifest stays until a file with other bytes comes.
        """
        begun = self.state.names()
        if _IDENTITY in begun and any(name.endswith(_ENTRY) for name in begun):
            _refuse_other(self.where, self._read_state(_IDENTITY), identity)
        self.run = secrets.token_hex(8)
        self.state.write(_RUN, self.run.encode())
        self._write_state(_IDENTITY, identity)
        if manifest.FILE in self.files.names():
            contents, altered = self._manifest()
            for entry in contents["shards"]:
                if entry["name"] + ".json" not in begun:  # of a repair that was killed, which knows more
                    self._write_state(entry["name"] + ".json", entry)
            if altered:
                self._unfinish()
            else:
                self.kept = _checksums(contents)
        for name in begun:
            if name.startswith("unit-"):
                self.state.delete(name)

    def _leave_nothing(self, before: set[str], is_new: bool) -> None:
        """Clears away what a packing wrote that failed before its first sample, and the folder where it made that.

        What was there `before` it stays.
        """
        self.check_claim()
        if any(entry["samples"] for entry in self.entries().values()):
            return  # there is something to go on from
        there = self.files.names()
        for name in there - before:
            if _is_ours(name, there):
                self.files.delete(name)
        self._remove_state()
        if is_new and isinstance(self.files, Disk):
            self.files.path.rmdir()

    def _remove_state(self) -> None:
        if isinstance(self.files, Disk):
            self.files.delete(STATE)
            return
        shutil.rmtree(self._scratch_parent(), ignore_errors=True)
        for name in sorted(self.state.names(), key=lambda name: name == _IDENTITY):  # last what tells ours from others'
            self.state.delete(name)

    def _scratch_parent(self) -> Path:
        """Below the machine's folder for temporary files (TMPDIR), by user and URL."""
        return Path(tempfile.gettempdir()) / f"shards-{os.getuid()}-{_sha256(str(self.where).encode())[:16]}"

    def _manifest(self) -> tuple[dict, str | None]:
        """As manifest.parse gives it."""
        return manifest.parse(self.files.read(manifest.FILE), self._path(manifest.FILE))

    def _path(self, name: str) -> Path | str:
        """For messages."""
        return self.files.path / name if isinstance(self.files, Disk) else f"{self.files.url}/{name}"

    def _write_state(self, name: str, value: Any) -> None:
        self.state.write(name, manifest.encode(value))

    def _read_state(self, name: str) -> Any:
        data = self.state.read(name)
        try:
            return json.loads(data)
        except ValueError:
            state = self._path(STATE)
            raise DataError(f"{state}/{name} is damaged: delete {state} and pack again") from None


def _is_ours(name: str, there: set[str]) -> bool:
    """Whether a file has a name that packing gives, a tar its index beside it among the names `there`."""
    tar = name.replace(index.ENDING, ".tar")
    if _is_shard(tar):
        return index.path_of(Path(tar)).name in there
    return name in (manifest.DROPPED, manifest.CONTRADICTIONS, "tokenizer.model", "tokenizer.json")


def _is_shard(name: str) -> bool:
    return manifest.SHARD_NAME.fullmatch(name) is not None


def _checksums(contents: dict) -> dict[str, str]:
    """The SHA-256 of every file that a manifest names."""
    found = {extra["file"]: extra["sha256"] for extra in manifest.extras(contents).values()}
    for entry in contents["shards"]:
        found[entry["name"]] = entry["sha256"]
        found[index.path_of(Path(entry["name"])).name] = entry["index_sha256"]
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse_other(where: str | Path, there: dict, wanted: dict) -> None:
    """DataError naming the first option in which a folder's packing differs from the one asked for."""
    there = {"source": there.get("source")} | (there.get("options") or {})
    wanted = {"source": wanted["source"]} | wanted["options"]
    for option in sorted(there.keys() | wanted.keys()):
        if there.get(option) != wanted.get(option):
            raise DataError(
                f"{where} was packed with {option} = {json.dumps(there.get(option))}, now asked for with "
                f"{json.dumps(wanted.get(option))}: choose another --out, or delete the folder"
            )
