"""What values may stand together in a configuration; said before anything is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_args

from cluster.config.fields import (
    HOLDOUT,
    RESERVED,
    ClusterConfig,
    Config,
    DataConfig,
    FinetuneConfig,
    NegativeKind,
    task_batch_size,
    task_group,
)
from cluster.config.options import show
from cluster.config.tasks import TASKS, weighed
from cluster.errors import ConfigError
from shards.errors import DataError
from shards.order.mixture import Mixture, parse_weight


def validate(config: Config, stages: Sequence[str] | None = None) -> None:
    """Raises ConfigError for values that are impossible, alone or together, naming the option and the fix.

    `stages`: the training stages that a command runs, None: all; values of the others are not looked at.
    """
    stages = config.stages if stages is None else tuple(stages)
    if not all(re.fullmatch(r"[\w-][\w.-]*", part) for part in config.name.split("/")):
        raise ConfigError(f"--name {config.name!r} must be letters, digits, '-', '_' and '.', for it names a folder")
    _at_least(
        config, 0, "seed", "data.loaders", "data.augment.light", "data.augment.crop", "data.pack_workers",
        "data.bad_samples", "data.words", "data.blocks.seed",
        "data.edits.seed", "data.blocks.class_photos", "data.blocks.relational", "data.blocks.camera", "evaluate.limit",
        "cluster.restarts", "log.profile_steps",
    )  # fmt: skip
    _at_least(
        config, 1, "data.blocks.supersample", "data.read_threads", "data.prefetch", "evaluate.beam",
        "evaluate.batch_size", "cluster.threads", "cluster.timeout_s",
    )  # fmt: skip
    _validate_workers(config.cluster)
    if config.cluster.cpus_per_worker <= 0:
        raise ConfigError("--cluster.cpus_per_worker must be more than 0")
    if config.data.shards == "":
        raise ConfigError("--data.shards is empty: name a shard folder")
    _validate_mix(config.data)
    if config.evaluate.split == HOLDOUT and (config.evaluate.shards or config.data.source != "blocks"):
        raise ConfigError(
            f"--evaluate.split {HOLDOUT}: scenes are held out of the embedded data set alone; leave out "
            f"--evaluate.shards and take a recipe that packs it, or choose train, val or test"
        )
    if config.data.bad_samples > 1:
        raise ConfigError("--data.bad_samples is a share and cannot be more than 1")
    if min(config.backbone.size) < 32:
        raise ConfigError("--backbone.size: height and width must be 32 pixels or more")
    _validate_training(config)
    strides = config.backbone.strides
    if any(stride < 1 for stride in strides) or any(b % a for a, b in zip(strides, strides[1:], strict=False)):
        raise ConfigError(
            f"--backbone.strides {show(strides)}: each is a number of pixels, and a multiple of the one before"
        )
    if config.data.features_on == "gpu" and config.cluster.gpus_per_worker == 0:
        raise ConfigError("--data.features_on gpu needs workers with GPUs, and --cluster.gpus_per_worker is 0")
    for name in config.pretraining:
        taken = name in RESERVED or name in {part.name for part in fields(config)}
        if taken or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ConfigError(
                f"pretraining stage {name!r}: choose a name of a-z, 0-9 and '_' that no option begins with"
            )
    for name in stages:
        _validate_stage(config, name)
    if "finetune" in stages:
        _at_least(config, 0, "finetune.validate_every", "finetune.validate_limit")
        _at_least(config, 1, "finetune.references")
        if config.model.caption_loss == "masked" and config.finetune.references > 1:
            raise ConfigError("--finetune.references above 1 needs --model.caption_loss causal")


def _validate_training(config: Config) -> None:
    """Of the backbone, and what training images are shown like."""
    backbone, augment = config.backbone, config.data.augment
    if backbone.train not in ("none", "all"):
        from idc.backbone.network import last_layers  # takes seconds, as torch does: not for --help
        from idc.backbone.weights import BackboneError

        try:
            last_layers(backbone.train)
        except BackboneError as error:
            raise ConfigError(f"--backbone.train {error}") from None
    if backbone.train != "none" and backbone.mode == "cached":
        raise ConfigError(f"--backbone.train {backbone.train} needs --backbone.mode live")
    if backbone.lr <= 0:
        raise ConfigError("--backbone.lr must be more than 0")
    if not 0 < backbone.lr_decay <= 1:
        raise ConfigError("--backbone.lr_decay must be more than 0 and at most 1")
    for name in ("light", "crop"):
        if getattr(augment, name) > 0.5:
            raise ConfigError(f"--data.augment.{name} is {getattr(augment, name)} and cannot be more than 0.5")


def _validate_workers(cluster: ClusterConfig) -> None:
    try:
        least, most = cluster.worker_range
    except ValueError:
        raise ConfigError(
            f"--cluster.workers {cluster.workers!r} is no number of workers: give one, such as 4, or a range, such as "
            f"2..8"
        ) from None
    if least < 0 or most < least or (least == 0 and most > 0):
        raise ConfigError(f"--cluster.workers {cluster.workers} must be 0 or more, a range from 1 or more upward")


def _validate_mix(data: DataConfig) -> None:
    names = [place.rstrip("/").rpartition("/")[2] for place in (data.shards, *data.mix)]
    for place, name in zip(data.mix, names[1:], strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"--data.mix {place}: another folder is called {name} too; link one by another name")
    places = {place.rstrip("/"): name for place, name in zip((data.shards, *data.mix), names, strict=True)}
    for option, place in (("photos", data.photos), ("classes", data.classes)):
        place = place.rstrip("/")
        name = place.rpartition("/")[2]
        if place and places.setdefault(place, name) and list(places.values()).count(name) > 1:
            raise ConfigError(f"--data.{option} {place}: another folder is called {name} too; link one by another name")
    try:
        # Of one sample each: it is the weights that are looked at.
        Mixture([1] * len(names), [1, *(parse_weight(str(weight)) for weight in data.mix.values())])
    except DataError as error:
        raise ConfigError(f"--data.mix: {error}") from None


def _at_least(config: object, least: int, *names: str, prefix: str = "") -> None:
    for name in names:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value < least:
            raise ConfigError(f"--{prefix}{name} is {value} and must be {least} or more")


def _validate_stage(config: Config, name: str) -> None:
    stage, prefix = config.stage(name), f"--{name}."
    _at_least(
        stage, 0, "steps", "warmup_steps", "weight_decay", "clip", "label_smoothing", "lr_floor",
        "same_class_share", "contrastive_group", "spike_factor", prefix=f"{name}.",
    )  # fmt: skip
    _at_least(
        stage, 1, "global_batch_size", "micro_batch_size", "checkpoint_every", "keep", "log_every", "skip_limit",
        "negatives.count", prefix=f"{name}.",
    )  # fmt: skip
    if stage.steps == 0:
        return
    for field_name in ("lr", "mvcl_temperature", "fda_temperature"):
        if getattr(stage, field_name) <= 0:
            raise ConfigError(f"{prefix}{field_name} must be more than 0")
    for field_name in ("label_smoothing", "lr_floor", "same_class_share"):
        if getattr(stage, field_name) > 1:
            raise ConfigError(f"{prefix}{field_name} is a share and cannot be more than 1")
    if stage.label_smoothing == 1:
        raise ConfigError(f"{prefix}label_smoothing must be less than 1")
    if 0 < stage.spike_factor <= 1:
        raise ConfigError(f"{prefix}spike_factor must be more than 1, or 0 for no step to be left out")
    if not all(0 <= beta < 1 for beta in stage.betas):
        raise ConfigError(f"{prefix}betas must be two numbers in [0, 1)")
    for table in ("ratios", "weights"):
        for key, value in getattr(stage, table).items():
            if value < 0:
                raise ConfigError(f"{prefix}{table}.{key} is {value} and cannot be negative")
    if config.data.words and stage.ratios.get("classify"):
        raise ConfigError(
            f"{prefix}ratios.classify needs classes, and --data.words takes words of captions instead: set one of the "
            f"two to 0"
        )
    if not any(stage.ratios.values()):
        raise ConfigError(f"{prefix}ratios draws no task: give one a ratio above 0, or set {prefix}steps 0")
    if name != "finetune" and stage.ratios.get("finetune"):
        raise ConfigError(f"{prefix}ratios.finetune: the task finetune belongs to --finetune.ratios")
    if name == "finetune" and not stage.ratios.get("finetune"):
        raise ConfigError("--finetune.ratios has no task finetune: give it a ratio above 0, or set --finetune.steps 0")
    if not stage.negatives.kinds:
        raise ConfigError(f"{prefix}negatives.kinds is empty: name one or more of {', '.join(get_args(NegativeKind))}")
    if stage.schedule == "noam" and stage.warmup_steps == 0:
        raise ConfigError(f"{prefix}schedule noam needs {prefix}warmup_steps of 1 or more")
    if stage.halve_at and stage.schedule != "halving":
        raise ConfigError(f"{prefix}halve_at is for {prefix}schedule halving, not {stage.schedule}")
    if stage.lr_floor and stage.schedule != "cosine":
        raise ConfigError(f"{prefix}lr_floor is for {prefix}schedule cosine, not {stage.schedule}")
    blocks = config.data.blocks if config.data.source == "blocks" else None
    made = {"blocks": ("blocks.scenes", config.data.blocks.scenes), "edits": ("edits.pairs", config.data.edits.pairs)}
    option, counts = made.get(config.data.source, ("", (1, 1, 1)))
    if not counts[0]:
        raise ConfigError(f"--data.{option} {show(counts)} has none to train on")
    if isinstance(stage, FinetuneConfig) and stage.validate_every and not counts[1]:
        raise ConfigError(f"{prefix}validate_every needs --data.{option} with some for val; set it to 0")
    for task, ratio in stage.ratios.items():
        if ratio:
            _validate_batch(config, name, task)
            if TASKS[task].objective == "labels" and config.model.architecture != "idc":
                raise ConfigError(f"{prefix}ratios.{task} needs --model.architecture idc; set the ratio to 0")
            if blocks and TASKS[task].stream == "class" and not (blocks.class_photos or config.data.classes):
                raise ConfigError(f"{prefix}ratios.{task} needs --data.blocks.class_photos of 1 or more")
            if not any(weighed(task, stage.weights).values()):
                raise ConfigError(f"{prefix}ratios.{task} teaches nothing: its losses weigh 0; set the ratio to 0")


def _validate_batch(config: Config, name: str, task: str) -> None:
    stage = config.stage(name)
    batch, group = task_batch_size(stage, task), task_group(stage, task)
    option = f"--{name}.batch_sizes.{task}" if task in stage.batch_sizes else f"--{name}.global_batch_size"
    if batch < 1 or batch % group:
        raise ConfigError(
            f"{option} {batch} must be a multiple of --{name}.contrastive_group {group} for the task {task}; a group "
            f"of 0 compares the whole batch"
        )
    if group > stage.micro_batch_size:
        raise ConfigError(
            f"--{name}.micro_batch_size {stage.micro_batch_size} is smaller than --{name}.contrastive_group {group}: "
            f"a group must fit into one micro-batch; a group of 0 compares the whole batch, however it is cut"
        )
