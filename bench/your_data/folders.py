"""Pairs as a user has them: images in two folders and a table; so many for training, and always the same test."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cluster.pipeline import say
from shards.format.record import Split
from shards.pack import pack
from shards.reading.reader import Folder, Stream
from shards.sources.blocks import BlocksOptions, BlocksSource
from shards.sources.edits import EditsSource
from shards.sources.pairs import PairsSource

TESTED = 300  # pairs, the same whatever the number of training pairs
VALIDATED = 5  # training pairs for each validation pair: who has few of them has few for both
# Pairs that are made: training pairs enough for the largest number, and photos enough for a test.
EDITS = (5000, 1000, 2500)
BLOCKS = (2500, 500, 150)  # scenes, of two pairs each
SIZES = (50, 500, 5000)


def made_of_photos(photos: Path, data: Path) -> Folder:
    """Edits of photos, packed where they are missing; no photo is in two splits."""
    pack(EditsSource(photos, pairs=EDITS), data / "edits", workers=1)
    return Folder.open(data / "edits")


def rendered(data: Path) -> Folder:
    """Scenes of `blocks`, packed where they are missing; no scene is in two splits."""
    pack(BlocksSource(**asdict(BlocksOptions(scenes=BLOCKS, size=(240, 160)))), data / "blocks", workers=1)
    return Folder.open(data / "blocks")


def own_pairs(made: Folder, number: int, data: Path) -> Path:
    """A shard folder with so many training pairs of `made`, packed from a folder and a table as a user's are."""
    out = data / f"{made.path.name}-{number}"
    if not (out / "manifest.json").is_file():
        say(f"{out}: {number} training pairs")
        folder = data / f"{out.name}-images"
        write_pairs(made, number, folder)
        pack(PairsSource(folder), out, workers=1)
    return out


def write_pairs(made: Folder, number: int, folder: Path) -> None:
    """Images below before/ and after/, and captions.csv."""
    counts: dict[Split, int] = {"train": number, "val": number // VALIDATED, "test": TESTED}
    with open_table(folder) as file:
        table = csv.writer(file)
        table.writerow(["before", "after", "captions", "changed", "change_type", "split"])
        for split, count in counts.items():
            stream = made.stream("pair", split)
            for place in list(spread(stream))[:count]:
                record, members = stream.sample(place)
                names = []
                for role in ("before", "after"):
                    (name,) = (name for name in members if name.startswith(f"{role}."))
                    path = folder / role / f"{stream.keys[place]}{Path(name).suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(members[name])
                    names.append(path.relative_to(folder).as_posix())
                labels = [record["changed"], record["change_type"], split]
                table.writerow([*names, "|".join(record["captions"]), *labels])


def open_table(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    return open(folder / "captions.csv", "w", newline="", encoding="utf-8")


def spread(stream: Stream) -> Iterator[int]:
    """The places of a stream's pairs, those of different photos first."""
    numbers = []
    for place, key in enumerate(stream.keys):
        number = stream.metadata(place)["id"].rpartition("//")[2]  # of a photo's pair; scenes have one of each kind
        digest = hashlib.sha256(key.encode()).hexdigest()
        numbers.append((int(number) if number.isdigit() else 0, digest, place))
    return (place for _, _, place in sorted(numbers))
