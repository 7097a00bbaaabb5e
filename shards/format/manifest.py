"""manifest.json: what a shard folder holds. Written last, so a folder that has one is complete."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from shards.errors import DataError
from shards.format.retries import retried
from shards.format.strict_json import parse_json
from shards.format.tars import KIND_PREFIX
from shards.format.whole_files import write_whole

FILE = "manifest.json"
DROPPED = "dropped.tsv"  # a line a sample that was left out: its id, a tab, the reason
CONTRADICTIONS = "contradictions.tsv"  # a line a pair that contradicts itself: split, id, what, sentences
SCHEMA = 1
CHECKSUM = "sha256"  # the field of the checksum of all others; a folder packed before there was one has none
LIMIT = 256 * 2**20  # bytes; a shard takes about 400
SPLITS = ("train", "val", "test")
KINDS = tuple(KIND_PREFIX)

SHARD_NAME = re.compile(r"(pairs|photos|classes)-(train|val|test)-\d{6,9}\.tar")
_FIELDS = {
    "schema", "source", "options", "splits", "shards", "classes", "tokenizer", "text", "features", "dropped",
    "dropped_file", "contradictions", "contradictions_file", "negatives", "denials", "shared_images",
}  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LISTS = {"dropped_file": DROPPED, "contradictions_file": CONTRADICTIONS}
_NOTES = {"contradictions": dict, "negatives": dict, "denials": list, "shared_images": dict}
_TOKENIZER_FILES = {"sentencepiece": "tokenizer.model", "words": "tokenizer.json"}


def encode(value: Any) -> bytes:
    """JSON as it is hashed and stored in samples: one line, keys sorted, the same bytes everywhere."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def count_splits(shards: list[dict]) -> dict[str, dict[str, int]]:
    """The "splits" entry of a manifest: samples by split and kind, summed over the shards."""
    counts = {split: dict.fromkeys(KINDS, 0) for split in SPLITS}
    for shard in shards:
        counts[shard["split"]][shard["kind"]] += shard["samples"]
    return counts


def extras(manifest: dict) -> dict[str, dict]:
    """The manifest's entries of files that are no shards, by field: each has "file" and "sha256"."""
    return {field: manifest[field] for field in ("tokenizer", *_LISTS) if manifest.get(field)}


def render(manifest: dict) -> bytes:
    """The bytes of manifest.json: the manifest with its checksum, the SHA-256 of `encode` of all its other fields."""
    rest = {field: value for field, value in manifest.items() if field != CHECKSUM}
    signed = rest | {CHECKSUM: hashlib.sha256(encode(rest)).hexdigest()}
    return (json.dumps(signed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write(folder: Path, manifest: dict) -> None:
    """Checks and writes manifest.json, whole or not at all."""
    validate(manifest, folder / FILE)
    write_whole(folder / FILE, render(manifest))


def read(folder: Path) -> dict:
    """The manifest of a shard folder; DataError naming the file and the fix where there is none that can be used."""
    path = folder / FILE
    if not folder.is_dir():
        made = f"python -m shards.pack SOURCE --root DIR --out {folder}"
        raise DataError(f"{folder}: no such folder; make it with {made}")
    try:
        data = retried(lambda: _start(path), path)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: {folder} is not a finished shard folder; run python -m shards.pack again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    manifest, altered = parse(data, path)
    if altered:
        raise DataError(altered)
    return manifest


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(LIMIT + 1)


def parse(data: bytes, path: Path | str) -> tuple[dict, str | None]:
    """(the manifest in a file's bytes, one line where they are not what was written).

    DataError naming the file and the fix where they are no manifest that can be used.
    """
    try:
        manifest = parse_json(data, LIMIT)
    except DataError as error:
        raise DataError(f"{path} cannot be used ({error}): delete it and run python -m shards.pack again") from None
    validate(manifest, path)
    # A folder packed before there was a checksum has none; one that lost it by a flipped byte has an unknown field.
    try:
        whole = data == render(manifest) if CHECKSUM in manifest else manifest.keys() <= _FIELDS
    except (ValueError, RecursionError):  # what `encode` could not have written: 1e999, a thousand brackets
        whole = False
    manifest.pop(CHECKSUM, None)
    return manifest, None if whole else f"{path}: it was altered after it was written (sha256 differs); pack again"


def validate(manifest: Any, path: Path | str) -> None:
    """Raises DataError naming the first field of a manifest that is missing, of the wrong type or impossible."""

    def fail(what: str) -> NoReturn:
        raise DataError(f"{path}: {what if len(what) < 300 else what[:300] + '...'}; run python -m shards.pack again")

    if not isinstance(manifest, dict):
        fail("not a JSON object")
    if manifest.get("schema") != SCHEMA:
        fail(f"schema is {manifest.get('schema')!r} and this version reads {SCHEMA}")
    for field, kind in (("source", str), ("options", dict), ("splits", dict), ("shards", list), ("classes", list),
                        ("dropped", dict)):  # fmt: skip
        if not isinstance(manifest.get(field), kind):
            fail(f"{field!r} is missing or not a {kind.__name__}")
    if ("tokenizer" in manifest) == ("features" in manifest):
        fail("exactly one of 'tokenizer' (images) and 'features' (arrays) must be there")
    if "tokenizer" in manifest:
        if manifest["tokenizer"] is not None:  # null: the folder has no training captions, it is for evaluation alone
            _validate_tokenizer(manifest["tokenizer"], fail)
        if not isinstance(manifest.get("text"), dict):
            fail("'text' is missing or not a dict")
    elif not isinstance(manifest["features"], dict):
        fail("'features' is not a dict")
    for field, name in _LISTS.items():  # where there is something to list
        if field in manifest:
            _validate_list(field, manifest[field], name, fail)
    for field, of in _NOTES.items():  # a folder packed before they were written has none
        if field in manifest and not isinstance(manifest[field], of):
            fail(f"{field!r} is not a {of.__name__}")
    if not all(isinstance(name, str) for name in manifest["classes"]):
        fail("'classes' must be a list of names")
    if not all(_is_count(count) for count in manifest["dropped"].values()):
        fail("'dropped' must be reasons with counts")
    for split, counts in manifest["splits"].items():
        if split not in SPLITS or not isinstance(counts, dict):
            fail(f"'splits' has {split!r}, which is not one of {', '.join(SPLITS)}")
        if not all(kind in KINDS and _is_count(count) for kind, count in counts.items()):
            fail(f"'splits' has counts of {split} that are not numbers of {', '.join(KINDS)}")
    names = set()
    for shard in manifest["shards"]:
        _validate_shard(shard, fail)
        if shard["name"] in names:
            fail(f"shard {shard['name']} is listed twice")
        names.add(shard["name"])


def _validate_shard(shard: Any, fail: Callable[[str], NoReturn]) -> None:
    if not isinstance(shard, dict) or not isinstance(shard.get("name"), str):
        fail("a shard entry has no name")
    match = SHARD_NAME.fullmatch(shard["name"])
    if match is None:
        fail(f"{shard['name']!r} is not the name of a shard (pairs-train-000000.tar)")
    if KIND_PREFIX.get(str(shard.get("kind"))) != match[1] or shard.get("split") != match[2]:
        fail(f"shard {shard['name']} is entered as kind {shard.get('kind')!r} of split {shard.get('split')!r}")
    if not _is_count(shard.get("samples")) or not _is_count(shard.get("bytes")):
        fail(f"shard {shard['name']}: 'samples' and 'bytes' must be numbers, 0 or more")
    for field in ("sha256", "index_sha256"):
        if not isinstance(shard.get(field), str) or not _SHA256.fullmatch(shard[field]):
            fail(f"shard {shard['name']}: {field!r} is not a SHA-256")


def _validate_tokenizer(tokenizer: Any, fail: Callable[[str], NoReturn]) -> None:
    if not isinstance(tokenizer, dict) or tokenizer.get("kind") not in _TOKENIZER_FILES:
        fail(f"'tokenizer' is not of a kind of {', '.join(_TOKENIZER_FILES)}")
    if tokenizer.get("file") != _TOKENIZER_FILES[tokenizer["kind"]]:
        fail(f"'tokenizer' of kind {tokenizer['kind']} has the file {tokenizer.get('file')!r}")
    if not _is_count(tokenizer.get("size")) or not _SHA256.fullmatch(str(tokenizer.get("sha256"))):
        fail("'tokenizer' needs 'size' and 'sha256'")


def _validate_list(field: str, entry: Any, name: str, fail: Callable[[str], NoReturn]) -> None:
    if not isinstance(entry, dict) or entry.get("file") != name:
        fail(f"{field!r} does not name {name}")
    if not _is_count(entry.get("lines")) or not _SHA256.fullmatch(str(entry.get("sha256"))):
        fail(f"{field!r} needs 'lines' and 'sha256'")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
