"""The state of a shard folder that is being packed, so that an interrupted packing goes on where it was.

DIR/.packing holds the options, a lock and one entry for each finished shard; it goes away when the manifest is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards import index, manifest
from shards.errors import DataError
from shards.tars import PARTIAL, file_sha256

STATE = ".packing"
_IDENTITY = "identity"


def finished(out: Path, identity: dict) -> dict | None:
    """The manifest of a complete, undamaged folder that was packed with these options; None where work is left."""
    if not (out / manifest.FILE).is_file():
        return None
    contents = manifest.read(out)
    _refuse_other(out, {field: contents.get(field) for field in identity}, identity)
    tokenizer = contents.get("tokenizer")
    if tokenizer and not _has_sha256(out / tokenizer["file"], tokenizer["sha256"]):
        return None
    return contents if all(is_whole(out, entry) for entry in contents["shards"]) else None


def is_whole(out: Path, entry: dict) -> bool:
    """Whether a shard and its index are there, byte for byte."""
    tar = out / entry["name"]
    return _has_sha256(index.path_of(tar), entry["index_sha256"]) and _has_sha256(tar, entry["sha256"])


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


@contextmanager
def claimed(out: Path, identity: dict) -> Iterator[None]:
    """Holds the folder for this process, with its state in DIR/.packing, which goes away when the packing ends well."""
    state = out / STATE
    if not state.is_dir() and not (out / manifest.FILE).is_file() and out.exists():
        if not out.is_dir() or any(out.iterdir()):
            raise DataError(f"{out} has other files in it: choose another --out, or an empty folder")
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = open(state / "lock", "w")
    except OSError as error:
        raise DataError(f"{out} cannot be written to ({error.strerror}): choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{out}: another process is packing into it; wait for it, or choose another --out"
            ) from None
        _open_state(out, identity)
        yield
        shutil.rmtree(state)


def finished_entry(out: Path, name: str) -> dict | None:
    """The manifest entry of a shard that an earlier run finished; None where none did."""
    return _read_json(_entry_path(out, name))


def note_finished(out: Path, entry: dict) -> None:
    """Remembers a finished shard."""
    _write_json(_entry_path(out, entry["name"]), entry)


def _entry_path(out: Path, name: str) -> Path:
    return out / STATE / f"{name}.json"


def _open_state(out: Path, identity: dict) -> None:
    """Checks that what was begun has the same options, and turns a complete folder that was damaged into one begun."""
    begun = _read_json(_entry_path(out, _IDENTITY))
    if begun is not None and any((out / STATE).glob("*.tar.json")):
        _refuse_other(out, begun, identity)
    if (out / manifest.FILE).is_file():
        for entry in manifest.read(out)["shards"]:
            note_finished(out, entry)
        (out / manifest.FILE).unlink()
    _write_json(_entry_path(out, _IDENTITY), identity)


def _refuse_other(out: Path, there: dict, wanted: dict) -> None:
    """DataError naming the first option in which a folder's packing differs from the one asked for."""
    there = {"source": there.get("source")} | (there.get("options") or {})
    wanted = {"source": wanted["source"]} | wanted["options"]
    for option in sorted(there.keys() | wanted.keys()):
        if there.get(option) != wanted.get(option):
            raise DataError(
                f"{out} was packed with {option} = {json.dumps(there.get(option))}, now asked for with "
                f"{json.dumps(wanted.get(option))}: choose another --out, or delete the folder"
            )


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + PARTIAL)
    partial.write_bytes(manifest.encode(value))
    os.replace(partial, path)


def _read_json(path: Path) -> Any:
    """What is in the file, None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise DataError(f"{path} is damaged: delete the folder {path.parent} and pack again") from None
