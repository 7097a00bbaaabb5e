"""One tokenizer for captions of several folders, trained on all of them: data/tokenizers/NAMES-HASH/.

A shard folder has a tokenizer of its own captions. What is read from two folders needs one that knows the words of
both: captioned photos, or pairs of another data set. It depends on the captions and the kind alone, so it is made once
for all runs on the same data and is never out of date.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from shards.errors import DataError, Unreachable
from shards.format.schema import faults
from shards.packing.tokenizer import train_tokenizer
from shards.reading.reader import Folder

FOLDER = "tokenizers"


def training_captions(shards: Folder, kind: str, changed_only: bool = False) -> list[str]:
    """The captions of all samples of a kind in train, or without pairs that have not changed; none of damaged ones."""
    stream, captions = shards.stream(kind, "train"), []
    for i in range(len(stream)):
        try:
            record = stream.metadata(i)
        except Unreachable:
            raise
        except DataError:
            continue
        if not any(faults(record, kind, ())) and not (changed_only and record.get("changed") is False):
            captions += record["captions"]
    return captions


def joint_tokenizer(texts: Sequence[tuple[Folder, str]], kind: str, data: Path) -> Path:
    """The file of the tokenizer of all training captions of these (folder, kind of its samples), made below `data`.

    `kind` as in `shards.packing.tokenizer.KINDS`. Raises DataError where there are no captions.
    """
    digest = hashlib.sha256(kind.encode())
    for shards, of in texts:
        digest.update(f" {shards.sha256()} {of}".encode())
    names = "+".join(dict.fromkeys(shards.path.name for shards, _ in texts))
    out = data / FOLDER / f"{names[:80]}-{digest.hexdigest()[:12]}"
    found = [path for path in (out / "tokenizer.model", out / "tokenizer.json") if path.is_file()]
    if found:
        return found[0]
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        captions = [caption for shards, of in texts for caption in training_captions(shards, of)]
        entry = train_tokenizer(captions, partial, kind)
        try:
            os.replace(partial, out)
        except OSError:
            if not out.is_dir():  # another run has not just made the same one
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / entry["file"]
