"""Samples that batches are made of: a kind and split of a shard folder, with features or pixels; bad ones are noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.batches.bad_samples import Bad
from cluster.batches.resident import Resident
from cluster.config.fields import NegativesConfig
from cluster.images.loaders import Loaders
from cluster.images.look import Look
from shards.errors import DataError, Unreachable
from shards.format.record import ROLES
from shards.format.schema import faults
from shards.negatives.kinds import drawn_from
from shards.reading.reader import Folder, Stream

SURVEYED_SAMPLES = 32  # of each kind, whose features say what channels are like
# By role: grid features (N, F), or their row in memory (`Resident`), or the pixels (H, W, 3) of a live backbone.
Arrays = Mapping[str, np.ndarray | np.int64]
Looks = Callable[[dict], Mapping[str, Look]]  # of a sample's json: how each of its images is shown
PROBED_SAMPLES = 64  # samples looked at when a stage starts, to find data that cannot serve its tasks


@dataclass(frozen=True)
class Mixed:
    """A further shard folder that samples are taken from, its features, and its weight beside 1 of the first folder."""

    shards: str | Path
    features: Path | None  # None: the backbone is live
    weight: Fraction = Fraction(1)


class Samples:
    """One kind and split of a shard folder joined with its cached features, or with what decodes its images."""

    def __init__(
        self,
        shards: str | Path,
        features: Path | None,
        kind: str,
        split: str,
        resident: Resident | None = None,
        loaders: Loaders | None = None,
    ) -> None:
        """shards, features: where the folders lie; features None: `loaders` decode the images. resident: features come
        from memory, as rows of it; those not there yet are read into it now."""
        folder, cached = Folder.open(shards), None if features is None else Folder.open(features)
        self.records: Stream = folder.stream(kind, split)
        self.kind, self.split = kind, split
        self.name = f"{kind} samples of {split} in {folder.path.name}"
        self._roles = ROLES[kind]
        self._classes: list[str] = folder.manifest["classes"]
        self._bad: dict[int, Bad] = {}
        self._features: Stream | None = None
        self._loaders = loaders
        if not len(self.records):
            raise DataError(f"{folder.path} has no {kind} samples in the split {split}")
        if cached is None:
            assert loaders is not None, "somebody has to make features, or pixels to make them of"
            self._rows = None
            return
        self._features = cached.stream(kind, split)
        made = cached.manifest["features"]
        self._shape = (math.prod(made["grid"]), made["dim"])
        if self.records.keys != self._features.keys:
            raise DataError(
                f"{cached.path} has other {kind} samples of {split} than {folder.path}: delete it, to be made again"
            )
        self._rows = (
            None
            if resident is None
            else resident.rows(f"{self.name}, {cached.path}", len(self), self._from_disk, self.condemn)
        )

    def __len__(self) -> int:
        return len(self.records)

    def name_of(self, i: int) -> str:
        """Sample i in words that lead to it: its folder and its key."""
        return f"{self.records.folder.path.name}/{self.records.keys[i]}"

    def record(self, i: int) -> dict:
        """The json of sample i; DataError naming it where it cannot be read or is not of the right form."""
        record = self.records.metadata(i)
        for fault in faults(record, self.kind, self._classes):
            raise DataError(f"{self.records.folder.path}: member {self.records.keys[i]}.json: {fault}")
        return record

    def arrays(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Grid features by role ("before" and "after", or "photo"): (n, N, F) as they are stored, float16.

        Of a live backbone pixels, uint8 (n, H, W, 3).
        """
        each = map if self._loaders is None else self._loaders.map
        return stack(list(each(self._from_disk, map(int, indices))))

    def some_features(self) -> Tensor:
        """Features (n, N, F), or pixels, of all images of SURVEYED_SAMPLES samples or fewer, spread over the split; of
        those that can be read. DataError where none can."""
        found: list[Tensor] = []
        for i in np.linspace(0, len(self) - 1, min(len(self), SURVEYED_SAMPLES)).astype(int).tolist():
            try:
                found += self.arrays([i]).values()
            except Unreachable:
                raise
            except DataError as error:
                self.condemn(i, error)
        if not found:
            where = (self._features or self.records).folder.path
            raise DataError(f"{where}: none of the {self.name} looked at has images to be read")
        return torch.cat(found)

    def _arrays(self, i: int, looks: Mapping[str, Look] | None) -> Arrays:
        """Grid features (N, F) of sample i by role, or their rows in memory (`Resident`), or pixels shown like this."""
        if self._rows is None:
            return self._from_disk(i, looks)
        rows = self._rows[i]
        assert not isinstance(rows, DataError), "it was condemned when it was read into memory"
        return rows

    def _from_disk(self, i: int, looks: Mapping[str, Look] | None = None) -> dict[str, np.ndarray]:
        """Grid features (N, F) of sample i by role, or pixels; DataError naming it where they cannot be used."""
        if self._features is None:
            return self._decoded(i, looks or {})
        arrays = self._features.arrays(i)
        if sorted(arrays) != sorted(self._roles) or any(array.shape != self._shape for array in arrays.values()):
            raise DataError(
                f"{self._features.folder.path}: sample {self._features.keys[i]} is not {' and '.join(self._roles)} of "
                f"shape {self._shape}"
            )
        return arrays

    def _decoded(self, i: int, looks: Mapping[str, Look]) -> dict[str, np.ndarray]:
        loaders = self._loaders
        assert loaders is not None
        found = self.records.images(i, lambda role, data: loaders.pixels(data, looks.get(role)))
        if sorted(found) != sorted(self._roles):
            raise DataError(
                f"{self.records.folder.path}: sample {self.records.keys[i]} is not {' and '.join(self._roles)}"
            )
        return found

    def first_good(
        self, candidates: Iterable[int], bad: list[Bad], looks: Looks | None = None
    ) -> tuple[int, dict, Arrays]:
        """(index, json, arrays) of the first candidate that can be read; those before it go to `bad`.

        looks: how the images of a live backbone are shown. One damaged member condemns a sample, whether the task at
        hand needs it or not. DataError where none is left.
        """
        for i in candidates:
            if i not in self._bad:
                try:
                    record = self.record(i)
                    if self.kind != "class" and not record["captions"]:
                        raise DataError(f"{self.records.folder.path}: sample {self.records.keys[i]} has no caption")
                    return i, record, self._arrays(i, looks(record) if looks else None)
                except DataError as error:
                    self.condemn(i, error)
            bad.append(self._bad[i])
        raise DataError(f"{bad[-1].why}; and none of the samples drawn in its place can be read")

    def condemn(self, i: int, error: DataError) -> None:
        """Sample i stays bad from now on: a disk that fails now and then must not give two answers."""
        if isinstance(error, Unreachable):
            raise error
        self._bad[i] = Bad(self.name, self.records.keys[i], str(error).partition(";")[0])


def stack(rows: Sequence[Arrays]) -> dict[str, Tensor]:
    """Arrays of several samples by role as tensors with one dimension more, of the same type."""
    return {role: torch.from_numpy(np.stack([row[role] for row in rows])) for role in rows[0]}


class ClassIndex:
    """The class of every class-labelled photo."""

    def __init__(self, samples: Samples, classes: int) -> None:
        self.ids = np.array([_class_of(samples, i) for i in range(len(samples))], dtype=np.int64)
        self._members = [np.flatnonzero(self.ids == number) for number in range(classes)]
        if sum(len(members) > 0 for members in self._members) < 2:
            raise DataError(f"{samples.records.folder.path}: the task classify needs photos of two classes or more")

    def partner(self, i: int, rng: np.random.Generator, same_class_share: float) -> int:
        """Another photo: of the class of photo i with this probability, else of another class."""
        members = self._members[self.ids[i]]
        if rng.random() < same_class_share and len(members) > 1:
            return int(members[(np.searchsorted(members, i) + 1 + rng.integers(len(members) - 1)) % len(members)])
        # One of those that are not members: the place among them, moved on past each member that lies before it.
        place = rng.integers(len(self.ids) - len(members))
        return int(place + np.searchsorted(members - np.arange(len(members)), place, side="right"))


def _class_of(samples: Samples, i: int) -> int:
    """The class of a photo, -1 where it cannot be read: when its turn comes, another one stands in for it."""
    try:
        return samples.record(i)["class_id"]
    except DataError as error:
        samples.condemn(i, error)
        return -1


def check_text(samples: Samples, negatives: NegativesConfig | None) -> None:
    """Raises DataError where captions are missing, or where none of the first samples has a negative of these kinds."""
    any_negative = negatives is None
    for i in range(min(len(samples), PROBED_SAMPLES)):
        try:
            record = samples.record(i)
        except Unreachable:
            raise
        except DataError:
            any_negative = True  # what it had is not known; when its turn comes, another one stands in for it
            continue
        if not record.get("captions"):
            raise DataError(f"{samples.records.folder.path}: sample {samples.records.keys[i]} has no caption")
        if negatives is not None:
            lists = record.get("negatives", {})
            any_negative |= any(lists.get(kind) for kind in drawn_from(lists, negatives.kinds))
    if negatives is not None and not any_negative:
        raise DataError(
            f"{samples.records.folder.path}: {samples.kind} samples have no negatives of the kinds "
            f"{', '.join(negatives.kinds)}: choose other negatives.kinds, or set the ratio and weight of fda to 0"
        )
