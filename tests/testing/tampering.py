"""Shard folders changed by somebody who knows how they are signed."""

from __future__ import annotations

import json
import tarfile

from shards.format import manifest
from shards.format.tars import write_shard

TAR = "pairs-train-000001.tar"


def edit_manifest(folder, edit) -> None:
    """Changes a manifest and signs it again, as one who packed it so would have."""
    contents = json.loads((folder / manifest.FILE).read_text())
    edit(contents)
    (folder / manifest.FILE).write_bytes(manifest.render(contents))


def entry_of(contents, name=TAR) -> dict:
    return next(shard for shard in contents["shards"] if shard["name"] == name)


def rewrite(folder, change, name=TAR) -> None:
    """Packs a tar anew with other members and signs it: index and manifest agree with it again."""
    with tarfile.open(folder / name) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    members = change(members)
    samples: dict[str, dict[str, bytes]] = {}
    for member, data in members:
        samples.setdefault(member.partition(".")[0], {})[member.partition(".")[2]] = data
    entry = write_shard(folder, name, samples.items())
    edit_manifest(folder, lambda contents: entry_of(contents, name).update(entry))
