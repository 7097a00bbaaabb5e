"""What workers are told: plain values, so that they pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.batches.samples import Mixed
from cluster.config.fields import Config
from cluster.config.options import deciding
from cluster.training.weights import open_tokenizer
from idc.captioning.tokenizer import Tokenizer
from shards.reading.reader import Folder


@dataclass(frozen=True)
class Evaluation:
    """Pairs to caption with the exported model, and where the captions go."""

    shards: str | Path
    features: Path | None  # None: the backbone is live
    split: str
    predictions: Path


@dataclass(frozen=True)
class Job:
    """What a worker is told; plain values, so that it pickles."""

    config: Config
    run: Path
    shards: str | Path
    features: Path | None  # None: the backbone is live
    stages: tuple[str, ...]  # training stages to do now
    exports: bool = False  # write the model of the best checkpoint to model/
    evaluation: Evaluation | None = None  # what to caption at the end
    mixed: tuple[Mixed, ...] = ()  # further folders of pairs to train on
    photos: Mixed | None = None  # the folder of captioned photos, where it is another
    classes: Mixed | None = None  # the folder of class-labelled photos, where it is another
    names: tuple[str, ...] = ()  # of what the model tells apart, by class id
    joint_tokenizer: Path | None = None  # where captions come from several folders; None: the tokenizer of `shards`
    live: dict[str, Any] | None = None  # of a live backbone: what it is (`Backbone.describe`)

    @property
    def feature_folders(self) -> list[Path]:
        """The features of all folders that are trained on."""
        further = [one.features for one in (*self.mixed, self.photos, self.classes) if one is not None]
        return list(dict.fromkeys(path for path in (self.features, *further) if path is not None))

    @property
    def backbone(self) -> dict[str, Any]:
        """What decides the features: `Backbone.describe`."""
        if self.live is not None:
            return self.live
        assert self.features is not None, "features are cached or made in training"
        return Folder.open(self.features).manifest["features"]

    @property
    def trained_on(self) -> list[tuple[str | Path, Path | None]]:
        """The folders of pairs that are trained on, each with that of its features, if they are cached."""
        return [(self.shards, self.features), *((one.shards, one.features) for one in self.mixed)]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all captions that are trained on."""
        return open_tokenizer(self.shards, self.joint_tokenizer)

    @property
    def config_sha256(self) -> str:
        """Of the options that decide what is learnt."""
        return hashlib.sha256(json.dumps(deciding(self.config), sort_keys=True).encode()).hexdigest()
