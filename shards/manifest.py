"""manifest.json: what a shard folder holds. Written last, so a folder that has one is complete."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.tars import KIND_PREFIX, PARTIAL

FILE = "manifest.json"
SCHEMA = 1
SPLITS = ("train", "val", "test")
KINDS = tuple(KIND_PREFIX)

SHARD_NAME = re.compile(r"(pairs|photos|classes)-(train|val|test)-\d{6,9}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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


def write(folder: Path, manifest: dict) -> None:
    """Checks and writes manifest.json, whole or not at all."""
    validate(manifest, folder / FILE)
    partial = folder / (FILE + PARTIAL)
    partial.write_text(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / FILE)


def read(folder: Path) -> dict:
    """The manifest of a shard folder; DataError naming the file and the fix where there is none that can be used."""
    path = folder / FILE
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make it with python -m shards.pack SOURCE --out {folder}")
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: {folder} is not a finished shard folder; run python -m shards.pack again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON: delete it and run python -m shards.pack again") from None
    validate(manifest, path)
    return manifest


def validate(manifest: Any, path: Path) -> None:
    """Raises DataError naming the first field of a manifest that is missing, of the wrong type or impossible."""

    def fail(what: str) -> None:
        raise DataError(f"{path}: {what}; run python -m shards.pack again")

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
    if not all(isinstance(name, str) for name in manifest["classes"]):
        fail("'classes' must be a list of names")
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


def _validate_shard(shard: Any, fail) -> None:
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


def _validate_tokenizer(tokenizer: Any, fail) -> None:
    if not isinstance(tokenizer, dict) or tokenizer.get("kind") not in _TOKENIZER_FILES:
        fail(f"'tokenizer' is not of a kind of {', '.join(_TOKENIZER_FILES)}")
    if tokenizer.get("file") != _TOKENIZER_FILES[tokenizer["kind"]]:
        fail(f"'tokenizer' of kind {tokenizer['kind']} has the file {tokenizer.get('file')!r}")
    if not _is_count(tokenizer.get("size")) or not _SHA256.fullmatch(str(tokenizer.get("sha256"))):
        fail("'tokenizer' needs 'size' and 'sha256'")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
