"""Files of captions scored under a named protocol: the content of a scores.json, and what was scored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster import CODE
from cluster.batches.joint_tokenizer import training_captions
from cluster.evaluation.predict import with_denials
from cluster.evaluation.protocol import NAMED, hashes, of_data, with_mean_of_four
from cluster.evaluation.scores import score
from cluster.launch.run_folder import code_state
from cluster.scoring.matching import references, with_captions
from cluster.scoring.paired import against
from idc.metrics.extras import extra_scores
from shards.errors import DataError
from shards.reading.reader import Folder


class Asked(NamedTuple):
    """What a command asks for."""

    captions: tuple[Path, ...]
    shards: str
    split: str
    protocol: str
    against: tuple[Path, ...] = ()
    limit: int = 0
    extras: tuple[str, ...] = ()


def score_files(asked: Asked) -> dict[str, Any]:
    """scores.json of the captions in files, without what needs a run (`where`, `seed`, `checkpoint`), with "files",
    "extras" and, if they are compared with others, "against". DataError for the user's mistakes, before any scoring."""
    shards = Folder.open(asked.shards)
    row = NAMED[asked.protocol]
    _require_packed(asked, shards)
    pairs = references(shards, asked.split, asked.limit)
    if not any(pair["references"] for pair in pairs):
        raise DataError(f"{asked.shards} has no pairs with captions in {asked.split}: name another --split")
    source = shards.manifest["source"]
    ours, theirs = (
        with_denials(with_captions(pairs, files, source, asked.split), shards) if files else []
        for files in (asked.captions, asked.against)
    )
    candidates = training_captions(shards, "pair")  # what the constant baseline chooses from
    found = score(ours, candidates, tokenizer=row.tokenizer)
    for name in ("seed", "checkpoint"):
        del found[name]
    code = code_state(CODE)
    found["protocol"] = of_data(shards, asked.split, ours, asked.limit, row.tokenizer, code, found["tokenizer"])
    if found["protocol"]["name"] is not None:  # the tokens are those of the protocol that was asked for
        found["protocol"]["name"] = asked.protocol
    found["protocol"] |= {"asked": asked.protocol, **_row(asked.protocol)}
    with_mean_of_four(found)
    found["hashes"] = hashes(ours)
    found["files"] = [_file(path) for path in asked.captions]
    stream = shards.stream("pair", asked.split)
    found["extras"] = extra_scores(ours, asked.extras, lambda key: stream.images(stream.find(key))["after"])
    if theirs:
        found["against"] = {
            "files": [_file(path) for path in asked.against],
            "hashes": hashes(theirs),
            **against(ours, theirs, row.tokenizer),
        }
    return found


def _require_packed(asked: Asked, shards: Folder) -> None:
    """DataError if the references of the folder are those of another protocol of the same data set."""
    row, packed = NAMED[asked.protocol], shards.manifest["options"].get("protocol", "")
    if row.packed and packed and packed != row.packed:
        raise DataError(
            f"--protocol {asked.protocol}: {asked.shards} was packed with --protocol {packed}; pack the data set again "
            f"with --protocol {row.packed} into another --out"
        )


def _row(name: str) -> dict[str, Any]:
    row = NAMED[name]
    said = {"sentences": row.references, "merging": row.merging, "subsets": list(row.subsets), "source": row.source}
    return said | {"is_of": row.data or None}


def _file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def other_data(found: Mapping[str, Any], shards: Folder) -> str:
    """A line if the protocol is for another data set than the folder holds, else nothing."""
    wanted, source = found["protocol"]["is_of"], shards.manifest["source"]
    if wanted is None or wanted == source:
        return ""
    return f"note: the protocol is for {wanted}, the data were packed from {source!r}"
