"""Data that are ready to be trained on or scored: folders of images, with their features or what is to make them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.batches.samples import Mixed
from shards.reading.reader import Folder


@dataclass(frozen=True)
class Data:
    """A shard folder and the features of its images, or a live backbone."""

    shards: Folder
    features: Folder | None
    live: dict[str, Any] | None = None  # what `idc.backbone` says of a backbone that runs in training

    @property
    def backbone(self) -> dict[str, Any]:
        """What decides the features: `Backbone.describe`."""
        assert self.features is not None or self.live is not None, "features are cached or made in training"
        return self.live or (self.features.manifest["features"] if self.features else {})

    @property
    def place(self) -> Mixed:
        """Where it lies, in plain values."""
        return Mixed(self.shards.location, self.features.path if self.features else None)


@dataclass(frozen=True)
class Training:
    """All data that a run trains on."""

    data: Data  # of --data.shards
    names: tuple[str, ...]  # what the model tells apart: classes, or words of captions
    mixed: tuple[Mixed, ...] = ()  # of --data.mix
    photos: Data | None = None  # of --data.photos
    classes: Data | None = None  # of --data.classes
    tokenizer: Path | None = None  # where captions of several folders are read; None: that of --data.shards

    def folders(self) -> list[Folder]:
        """Every shard folder that samples come from, each once."""
        single = [each.shards for each in (self.data, self.photos, self.classes) if each is not None]
        found = [*single, *(Folder.open(each.shards) for each in self.mixed)]
        return list({folder.location: folder for folder in found}.values())

    def of(self, kind: str) -> Data:
        """Where the samples of a kind come from, mixed pairs aside."""
        return {"photo": self.photos, "class": self.classes}.get(kind) or self.data
