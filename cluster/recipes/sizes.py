"""Sizes by the number of pairs: how long recipes for anybody's pairs train, and in what batches.

Few pairs are seen often, many pairs seldom: the samples of a stage go with the square root of the number of pairs. What
the user sets is left as it is.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from cluster.config.fields import Config, StageConfig
from cluster.recipes.commandline import read_config
from cluster.recipes.registry import BY_PAIRS
from shards.format.manifest import FILE
from shards.reading.object_store import is_url
from shards.reading.reader import Folder

S = TypeVar("S", bound=StageConfig)
MEASURED = 1500  # training pairs that the schedule of `pairs` was measured with
LEAST, MOST = 1 / 3, 10.0  # of its samples
# Pairs below which a batch is halved, since it would be a good part of all, and from which it is doubled.
FEW, MANY = 500, 20_000
PERIODS = ("steps", "validate_every", "checkpoint_every")
BATCH = "global_batch_size"


def with_sizes_of(config: Config, recipe: str, given: Collection[str], root: Path) -> Config:
    """The configuration of a recipe with sizes for the training pairs that lie at --data.shards; says which.

    given: the options that the user has set. A recipe that has its own sizes is left as it is. Where the pairs are not
    there and will not be packed, the sizes are those of the run folder, if there is one.
    """
    if recipe not in BY_PAIRS:
        return config
    place = config.data.shards if is_url(config.data.shards) else root / config.data.shards
    if not isinstance(place, Path) or (place / FILE).is_file():
        pairs = Folder.open(place).manifest["splits"].get("train", {}).get("pair", 0)
    elif config.data.source == "edits" and config.data.edits.photos:  # they will be packed
        pairs = config.data.edits.pairs[0]
    else:
        saved = root / "runs" / config.name / "config.yaml"
        return _with_sizes(config, read_config(saved), given) if saved.is_file() else config
    sized = _with_sizes(config, scaled(config, pairs), given)
    stages = ", ".join(
        f"{name} {sized.stage(name).steps:,} steps of {sized.stage(name).global_batch_size}" for name in sized.stages
    )
    print(f"{recipe}: {pairs:,} training pairs, so {stages}", file=sys.stderr, flush=True)
    return sized


def scaled(config: Config, pairs: int) -> Config:
    """A configuration whose schedule is for MEASURED training pairs, with one for so many."""
    times = min(max(math.sqrt(max(pairs, 1) / MEASURED), LEAST), MOST)
    batch = 0.5 if pairs < FEW else 2 if pairs >= MANY else 1

    def of(stage: S) -> S:
        sizes: dict[str, Any] = {field: math.ceil(getattr(stage, field) * times / batch) for field in _periods(stage)}
        if validate := getattr(stage, "validate_every", 0):  # the last step is validated where it was
            sizes["steps"] = round(stage.steps / validate) * sizes["validate_every"]
        sizes[BATCH] = int(stage.global_batch_size * batch)
        return dataclasses.replace(stage, **sizes)

    pretraining = {name: of(stage) for name, stage in config.pretraining.items()}
    return dataclasses.replace(config, finetune=of(config.finetune), pretraining=pretraining)


def _with_sizes(config: Config, other: Config, given: Collection[str]) -> Config:
    """The configuration with the sizes of another, those aside that are given."""

    def of(name: str, stage: S) -> S:
        fields = [field for field in _periods(stage) if f"{name}.{field}" not in given]
        # A group that the user has set divides the recipe's own batch, maybe no smaller one.
        if not {f"{name}.{BATCH}", f"{name}.contrastive_group"} & set(given):
            fields.append(BATCH)
        return dataclasses.replace(stage, **{field: getattr(other.stage(name), field) for field in fields})

    pretraining = {name: of(name, stage) for name, stage in config.pretraining.items() if name in other.pretraining}
    return dataclasses.replace(
        config, finetune=of("finetune", config.finetune), pretraining=config.pretraining | pretraining
    )


def _periods(stage: StageConfig) -> list[str]:
    return [field for field in PERIODS if hasattr(stage, field)]
