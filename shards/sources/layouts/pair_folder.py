"""What the sources of captioned pairs in a folder have in common: annotation files name photos, photos lie beside."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError
from shards.format.manifest import encode
from shards.format.record import Record, Split
from shards.sources.layouts.layout import SPLITS, ImageFiles, Losses, Photos, Units, digest, image_fault, key_of

Located = tuple[str, str | None, str | None]  # a photo's name in the annotations, its path, why there is none


@dataclass(frozen=True)
class Pair:
    """A pair as the annotations have it: each photo by the name they give it and by its path, or why it is missing.

    `name` is the source's own and unique in its split.
    """

    split: Split
    name: str
    before: Located
    after: Located
    captions: tuple[str, ...]
    changed: bool | None = None


class PairFolder(ImageFiles, ABC):
    """A source of pairs: a subclass says which files annotate and what they say."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.photos = Photos(self.root)

    @abstractmethod
    def annotations(self) -> list[str]:
        """The annotation files that are there, by their names inside the root."""

    @abstractmethod
    def pairs(self, losses: Losses) -> Iterator[Pair]:
        """All pairs, whether they can be packed or not; notes in `losses` what of the annotations is no pair."""

    def split_files(self, names: Mapping[Split, Sequence[str]], folders: Sequence[str]) -> dict[Split, str]:
        """The annotation file of each split that has one, under the first of its names in the first of the folders."""
        found = {}
        for split in SPLITS:
            paths = [os.path.normpath(f"{folder}/{name}") for folder in folders for name in names[split]]
            there = [path for path in paths if (self.root / path).is_file()]
            if there:
                found[split] = there[0]
        if not found:
            raise DataError(f"{self.root} has none of its annotation files: --root must be {self.layout}")
        return found

    def describe(self) -> dict:
        """What the records depend on, for a manifest: digests of the annotation files and of which photos are there."""
        self.photos = Photos(self.root)
        photos = [(pair.split, pair.name, pair.before[1], pair.after[1]) for pair in self.pairs(Losses())]
        return {
            "annotations_sha256": digest(self.root, self.annotations()),
            "photos_sha256": hashlib.sha256(encode(photos)).hexdigest(),
        }

    def records(self, workers: int = 1) -> list[Record]:
        """A record for each pair that has captions and both photos, by split, in the order of the annotations.

        What is left out is counted in `dropped` and named in `lost`. `workers` makes no difference. Raises DataError
        where no pair is left, or naming the first entry of the annotations that is not of their form.
        """
        losses, self.photos = Losses(), Photos(self.root)
        units = Units()
        found = []
        for pair in sorted(self.pairs(losses), key=lambda pair: SPLITS.index(pair.split)):
            unit = units.next_of(pair.split)
            if not self._can_be_packed(pair, losses):
                continue
            before, after = pair.before[1], pair.after[1]
            assert before is not None and after is not None, "pairs without their photos have been left out"
            found.append(
                Record(
                    kind="pair",
                    split=pair.split,
                    key=key_of(f"{pair.split}-{pair.name}"),
                    images={"before.jpg": before, "after.jpg": after},
                    id=pair.name,
                    captions=pair.captions,
                    changed=pair.changed,
                    change_type="none" if pair.changed is False else None,
                    unit=unit,
                )
            )
        self.leave_out(losses)
        self.photos.names.tell()
        if not found:
            first = f"; the first of {len(losses.lost)} left out: {losses.lost[0]}" if losses.lost else ""
            raise DataError(f"{self.root} has no pair that can be packed: --root must be {self.layout}{first}")
        return found

    def _can_be_packed(self, pair: Pair, losses: Losses) -> bool:
        """Whether a pair has captions and photos; notes the first reason why not."""
        name = f"{pair.split} {pair.name}"
        if not pair.captions:
            losses.add(name, "no captions")
            return False
        for photo, path, why in (pair.before, pair.after):
            reason = why if path is None else image_fault(self.root, path)
            if reason is not None:
                losses.add(name, reason, photo)
                return False
        return True
