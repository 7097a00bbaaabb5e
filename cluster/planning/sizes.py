"""The sizes of a model that its data decide, found without making any data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cluster.config.fields import Config
from cluster.config.tasks import TASKS
from cluster.errors import ConfigError
from cluster.prepare import backbone_sizes
from cluster.training.weights import open_tokenizer
from shards.format.manifest import FILE
from shards.reading.object_store import is_url
from shards.reading.reader import Folder


def with_planned_sizes(config: Config, root: Path, vocabulary: int | None, classes: int | None) -> Config:
    """The configuration with the sizes of packed data, or with those given. ConfigError for one that nobody knows."""
    sizes = {
        "vocab_size": vocabulary or _vocabulary(config, root),
        "classes": _classes(config, root) if classes is None else classes,
        "attributes": bool(config.data.words),
        **backbone_sizes(config),
    }
    try:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None


def _vocabulary(config: Config, root: Path) -> int:
    others = [*config.data.mix, *([config.data.photos] if config.data.photos else [])]
    folder = _packed(root, config.data.shards)
    if folder is None or others:
        why = f"{config.data.shards} is not packed" if folder is None else f"{others[0]} shares the captions' tokenizer"
        raise ConfigError(f"--vocabulary is not known, {why}: give the number of words of the tokenizer")
    return open_tokenizer(folder.location).size


def _classes(config: Config, root: Path) -> int:
    if config.data.words:
        return config.data.words  # at most
    name = config.data.classes or config.data.shards
    folder = _packed(root, name)
    if folder is not None:
        return len(folder.manifest["classes"])
    if config.data.source == "blocks" and not config.data.classes:
        from shards.sources.blocks import BlocksSource

        return len(BlocksSource(**dataclasses.asdict(config.data.blocks)).classes())
    stages = [config.stage(stage) for stage in config.stages if config.stage(stage).steps]
    tasks = [task for stage in stages for task, ratio in stage.ratios.items() if ratio]
    if config.model.architecture == "idc" or any(TASKS[task].stream == "class" for task in tasks):
        raise ConfigError(f"--classes is not known, {name} is not packed: give the number of classes")
    return 0


def _packed(root: Path, name: str) -> Folder | None:
    """A shard folder that is there; None: it is still to be packed."""
    place = name if is_url(name) else root / name
    return Folder.open(place) if is_url(place) or (Path(place) / FILE).is_file() else None
