"""Makes the data of a run ready: packs the embedded set and caches features where they are missing, reads off sizes."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.errors import ConfigError
from cluster.features import Extraction, cache_features, open_features
from cluster.options import show
from cluster.schedule import STREAM_OF_TASK
from shards.reader import Folder


@dataclass(frozen=True)
class Data:
    """A shard folder and the features of its images."""

    shards: Folder
    features: Folder


def prepare(config: Config, root: Path) -> Data:
    """The run's training data, made where missing. ConfigError naming the option and the command where it cannot be."""
    path = root / config.data.shards
    if not (path / "manifest.json").is_file():
        _pack_missing(config, path)
    shards = Folder.open(path)
    _check_packed(config, shards)
    return _with_features(config, shards, root / config.data.features if config.data.features else None)


def prepare_evaluation(config: Config, root: Path, data: Data | None) -> Data:
    """What --evaluate.shards names, or the run's own data."""
    if not config.evaluate.shards:
        return data if data is not None else prepare(config, root)
    path = root / config.evaluate.shards
    if not path.is_dir():
        raise _no_folder("--evaluate.shards", path)
    return _with_features(config, Folder.open(path), None)


def _no_folder(option: str, path: Path) -> ConfigError:
    return ConfigError(f"{option} {path}: no such folder; make it with python -m shards.pack SOURCE --out {path}")


def _workers(config: Config) -> int:
    return config.data.pack_workers or len(os.sched_getaffinity(0))


def _pack_missing(config: Config, path: Path) -> None:
    if config.data.source == "none":
        raise _no_folder("--data.shards", path)
    from shards.pack import pack
    from shards.sources.blocks import BlocksSource

    source = BlocksSource(**dataclasses.asdict(config.data.blocks))
    pack(source, path, workers=_workers(config), tokenizer=config.data.tokenizer)


def _check_packed(config: Config, shards: Folder) -> None:
    """ConfigError where a blocks folder was packed with other options than the recipe's."""
    manifest = shards.manifest
    if config.data.source != "blocks" or manifest["source"] != "blocks":
        return
    wanted = {f"blocks.{name}": value for name, value in dataclasses.asdict(config.data.blocks).items()}
    for name, value in (wanted | {"tokenizer": config.data.tokenizer}).items():
        found = manifest["options"].get(name.removeprefix("blocks."))
        if found != (list(value) if isinstance(value, tuple) else value):
            raise ConfigError(
                f"{shards.path} was packed with {show(found)} for --data.{name}, which is {show(value)}: name another "
                f"folder with --data.shards, delete this one, or take its value"
            )


def _with_features(config: Config, shards: Folder, path: Path | None) -> Data:
    backbone = config.backbone
    height, width = backbone.size
    path = path or shards.path.with_name(f"{shards.path.name}-{backbone.name}-{height}x{width}")
    extraction = Extraction(backbone.name, backbone.weights, backbone.size)
    cache_features(shards.path, path, extraction, _workers(config))
    return Data(shards, open_features(path, shards))


def with_sizes(config: Config, data: Data) -> Config:
    """The configuration with the sizes that the data decide; ConfigError where they lack what a task needs."""
    manifest, features = data.shards.manifest, data.features.manifest["features"]
    counts = manifest["splits"].get("train", {})
    for name in ("pretrain", "finetune"):
        stage = config.stage(name)
        for task, ratio in stage.ratios.items():
            kind = STREAM_OF_TASK[task]
            if stage.steps and ratio and not counts.get(kind, 0):
                raise ConfigError(
                    f"--{name}.ratios.{task} needs {kind} samples and {data.shards.path} has none in train: set it to 0"
                )
    validates = config.finetune.steps and config.finetune.validate_every
    if validates and not manifest["splits"].get("val", {}).get("pair", 0):
        raise ConfigError(f"--finetune.validate_every: {data.shards.path} has no pairs in its val split; set it to 0")
    sizes = {
        "vocab_size": manifest["tokenizer"]["size"],
        "classes": len(manifest["classes"]),
        "grid": tuple(features["grid"]),
        "feature_dim": features["dim"],
        # A finer level folded into the grid comes first in a cell.
        "fine_channels": features["channels"][0] if len(features["channels"]) > 1 else 0,
    }
    try:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None
