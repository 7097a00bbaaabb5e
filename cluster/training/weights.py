"""Weights that pass from stage to stage and out of a run: first weights of a stage, the exported model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.config.fields import Config, FinetuneConfig
from cluster.config.options import show
from cluster.errors import ConfigError
from cluster.evaluation.calibrating import Place, calibrate
from cluster.images.live import Live
from cluster.images.loaders import Loaders
from cluster.recipes.commandline import read_config
from cluster.training import checkpoint
from idc.backbone.weights import tensors_sha256
from idc.captioning import hub, model_folder
from idc.captioning import tokenizer as tokenizers
from idc.captioning.model_folder import BACKBONE_FILE
from idc.captioning.tokenizer import Tokenizer
from idc.losses.training_model import BACKBONE, apart
from idc.model.build import build
from idc.model.config import SIZES
from shards.reading.reader import Folder

# Heads that another data set may need in another size; everything else has to fit.
REPLACEABLE = ("class_head.", "match_head.")
# Axes that follow the vocabulary, and those that follow the classes ("nothing" may come after the last).
WORD_AXES = {"embedding.words.weight": 0, "word_head.weight": 0, "word_head.bias": 0, "pointer.table": 1}
CLASS_AXES = {"finder.class_head.weight": 0, "finder.class_head.bias": 0, "pointer.table": 0}
CLASS_WORDS = "class_words"
# Of a network: what a model and the run that starts from it must have in common.
SIZE_FIELDS = ("architecture", *SIZES["small"])
# What a backbone's features mean; of other sizes of the images they mean the same.
MEANING = ("backbone", "weights_sha256", "channels", "strides")


def source_of_stage(run: Path, config: Config, name: str, root: Path) -> Path | None:
    """The weights file that a stage starts from: the first one from that of --init; None: random weights.

    ConfigError where the file or the earlier stage is missing, naming what to do.
    """
    earlier = [other for other in config.stages[: config.stages.index(name)] if config.stage(other).steps]
    if not earlier:
        return _source_of_init(config.init, root) if config.init else None
    before, steps = earlier[-1], config.stage(earlier[-1]).steps
    newest = checkpoint.latest(run / "checkpoints" / before)
    if newest is None or newest.commit.step < steps:
        done = newest.commit.step if newest else 0
        zero = " ".join(f"--{other}.steps 0" for other in earlier)
        raise ConfigError(
            f"{run} has {done} of the {steps} steps of {before}: run --stage pretrain (or all) first, "
            f"or set {zero} to train {name} alone"
        )
    return newest.weights


def _source_of_init(init: str, root: Path) -> Path:
    """The weights file that --init means: of a model folder where there is one, else of the run's pre-training."""
    path = root / init
    try:
        if hub.is_id(init) and not (root / init.split("/")[0]).exists():
            return model_folder.find(init) / model_folder.WEIGHTS
        if not path.exists():
            raise ConfigError(f"--init {path}: no such run folder, model folder or .safetensors file")
        if path.is_file():
            return path
        has_model = any((folder / model_folder.CONFIG).is_file() for folder in (path, path / model_folder.FOLDER))
        if not has_model and (path / "config.yaml").is_file():
            stages = read_config(path / "config.yaml").pretraining
            found = [checkpoint.latest(path / "checkpoints" / stage) for stage in stages]
            if any(found):
                return [newest for newest in found if newest][-1].weights
        return model_folder.find(path) / model_folder.WEIGHTS
    except model_folder.ExportError as error:
        raise ConfigError(f"--init {error}") from None


def check_init(config: Config, root: Path) -> None:
    """ConfigError where the model that --init names is of another backbone, or of other sizes, than this run's.

    What only the data decide is looked at when the weights are loaded.
    """
    path = _source_of_init(config.init, root)
    if path.name != model_folder.WEIGHTS:  # of a checkpoint, which says nothing of its sizes
        return
    theirs = _opened(path)
    found, wanted = theirs.backbone.get("backbone"), config.backbone.name
    if found != wanted:
        raise ConfigError(
            f"--init {config.init}: this model looks through {found} and the run through {wanted}: set "
            f"--backbone.name {found}, or start from another model"
        )
    for name in SIZE_FIELDS:
        found, wanted = getattr(theirs.model.config, name), getattr(config.model, name)
        if found != wanted:
            raise ConfigError(
                f"--init {config.init}: this model has {name} {show(found)} and the run has {show(wanted)}: set "
                f"--model.{name} {show(found)}, or start from another model"
            )


def _opened(path: Path) -> model_folder.Exported:
    """The model folder of a weights file."""
    try:
        return model_folder.load(path.parent)
    except (model_folder.ExportError, tokenizers.TokenizerError) as error:
        raise ConfigError(f"--init {error}") from None


def check_starts(run: Path, config: Config, stages: Sequence[str], root: Path) -> None:
    """ConfigError where one of these stages could not begin: its first weights are missing, or parts that are none.

    A stage that has begun needs none any more; those of a later one may still be to come.
    """
    for place, name in enumerate(stages):
        if checkpoint.latest(run / "checkpoints" / name) is not None:
            continue
        stage = config.stage(name)
        if not place:
            first = source_of_stage(run, config, name, root)
            if first is not None and config.init:
                check_init(config, root)
        if stage.start_parts:
            with torch.device("meta"):  # of any grid: it is not known yet
                model = build(dataclasses.replace(config.model, regions=1, novelties=0, pooled=1))
            parts = [*model.state_dict(), *([BACKBONE] if config.backbone.train != "none" else [])]
            _check_parts(parts, stage.start_parts, f"--{name}.")


def _check_parts(state: Iterable[str], parts: Sequence[str], prefix: str = "") -> None:
    known = {name.split(".")[0] for name in state}
    if unknown := sorted(set(parts) - known):
        raise ConfigError(
            f"{prefix}start_parts {unknown[0]!r} is no part of this model; it has {', '.join(sorted(known))}"
        )


def load_first_weights(model: nn.Module, path: Path, parts: Sequence[str] = (), backbone_sha256: str = "") -> None:
    """Loads a weights file into a model of the same sizes; classification heads of another data set stay random.

    parts: names of the model's parts to load ("finder", "matching"); empty: all. backbone_sha256: of the weights that
    the run's backbone has by itself, which it keeps if the file has none. Raises ConfigError naming the part that is
    not there or the first tensor that does not fit.
    """
    weights = checkpoint.load_weights(path)
    if not any(name.startswith(BACKBONE) for name in model.state_dict()):
        weights, of_backbone = apart(weights)
        if of_backbone and tensors_sha256(of_backbone) != backbone_sha256:
            raise ConfigError(
                f"{path} was trained with its backbone: train this one too (--backbone.mode live, --backbone.train), "
                f"or give {BACKBONE_FILE} of its exported model as --backbone.weights"
            )
    _load(model, weights, path, parts)


def _load(model: nn.Module, weights: dict[str, Any], path: Path, parts: Sequence[str]) -> None:
    """Loads weights, all or those of some parts; `path` is the file that an error names."""
    own = model.state_dict()
    if parts:
        _check_parts(own, parts)
        weights = {name: weight for name, weight in weights.items() if name.split(".")[0] in parts}
        own = {name: weight for name, weight in own.items() if name.split(".")[0] in parts}
    for name in list(weights):
        if name in own and weights[name].shape == own[name].shape:
            continue
        if name.startswith(REPLACEABLE):
            del weights[name]
            continue
        found = tuple(own[name].shape) if name in own else "no such tensor"
        raise ConfigError(
            f"{path}: {name} is {tuple(weights[name].shape)} and this model has {found}: use the model options, the "
            f"tokenizer and the features of the run that the weights come from"
        )
    if not any(name.startswith(BACKBONE) for name in weights):
        own = apart(own)[0]
    missing = [name for name in own if name not in weights and not name.startswith(REPLACEABLE)]
    if missing:
        raise ConfigError(f"{path} has no {missing[0]}, which this model needs: its model options were other ones")
    model.load_state_dict(weights, strict=False)


def start_from_model(
    model: nn.Module, path: Path, tokenizer: Tokenizer, features: Mapping[str, Any], parts: Sequence[str] = ()
) -> None:
    """Loads the weights of a model folder (`path`: its weights file) into a model of another vocabulary and classes.

    Rows of the words that both vocabularies have are taken over by piece, those of the classes by name; the others stay
    as `model` has them. features: the manifest's description of those that `model` is trained on. Raises ConfigError
    if they are of another backbone, and as `load_first_weights` does.
    """
    theirs = _opened(path)
    for name in MEANING:
        if theirs.backbone.get(name) != features.get(name):
            raise ConfigError(
                f"{path.parent} was trained on features of {name} {theirs.backbone.get(name)} and these have "
                f"{features.get(name)}: start from a model of the same backbone, or set --backbone.name to its own"
            )
    weights, own = theirs.model.state_dict(), model.state_dict()
    words = _common(theirs.tokenizer.pieces(), tokenizer.pieces())
    classes: Rows = []
    if CLASS_WORDS in weights and CLASS_WORDS in own:
        classes = _common(_class_names(weights, theirs.tokenizer), _class_names(own, tokenizer))
        weights[CLASS_WORDS] = own[CLASS_WORDS]
    for name in WORD_AXES | CLASS_AXES:
        if name in weights and name in own:
            weights[name] = _taken_over(name, weights[name], own[name], words, classes)
    _load(model, weights, path, parts)


Rows = list[tuple[int, int]]  # (theirs, ours) of the same meaning


def _common(theirs: Sequence[str], ours: Sequence[str]) -> Rows:
    places = {name: place for place, name in enumerate(theirs) if name}
    return [(places[name], place) for place, name in enumerate(ours) if name in places]


def _class_names(state: Mapping[str, torch.Tensor], tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(row) for row in state[CLASS_WORDS].tolist()]


def _taken_over(name: str, theirs: torch.Tensor, own: torch.Tensor, words: Rows, classes: Rows) -> torch.Tensor:
    """`own` with the rows of known words and classes from `theirs`; `theirs` as it is if its other sizes differ."""
    moved = {
        axis: rows for axes, rows in ((WORD_AXES, words), (CLASS_AXES, classes)) if (axis := axes.get(name)) is not None
    }
    if any(theirs.shape[axis] != own.shape[axis] for axis in range(own.ndim) if axis not in moved):
        return theirs
    if name.startswith("finder."):
        moved = {0: [*classes, (theirs.shape[0] - 1, own.shape[0] - 1)]}
    rows = [moved.get(axis, [(i, i) for i in range(size)]) for axis, size in enumerate(own.shape)]
    taken = own.clone()
    places = [torch.tensor(axis, dtype=torch.int64).reshape(-1, 2).unbind(1) for axis in rows]
    taken[torch.meshgrid(*(ours for _, ours in places), indexing="ij")] = theirs[
        torch.meshgrid(*(their for their, _ in places), indexing="ij")
    ].to(own.dtype)
    return taken


def open_tokenizer(shards: str | Path, joint: Path | None = None) -> Tokenizer:
    """The tokenizer `joint` of several folders, else that of a shard folder; ConfigError where it cannot be used."""
    try:
        if joint is not None:
            return tokenizers.load(joint)
        folder = Folder.open(shards)
        entry = folder.manifest.get("tokenizer")
        if not entry:
            raise ConfigError(f"{shards} has no tokenizer: it can be evaluated on, not trained on")
        return tokenizers.load(folder.path / entry["file"])
    except tokenizers.TokenizerError as error:
        raise ConfigError(str(error)) from None


def best_checkpoint(run: Path, config: Config) -> checkpoint.Checkpoint | None:
    """The checkpoint that is exported: the best of finetune, or the last of pre-training in a run without it."""
    last = [name for name in config.stages if config.stage(name).steps][-1:]
    if not last:
        return None
    stage = config.stage(last[0])
    folder = run / "checkpoints" / last[0]
    return checkpoint.best(folder, stage.select) if isinstance(stage, FinetuneConfig) else checkpoint.latest(folder)


def export_model(
    folder: Path,
    config: Config,
    tokenizer: Path,
    backbone: Mapping[str, Any],
    trained_on: Sequence[Place],
    found: checkpoint.Checkpoint,
    device: torch.device | str = "cpu",
    loaders: Loaders | None = None,
    told: Callable[[int, int], object] = lambda done, count: None,
) -> None:
    """Writes a model folder, what `idc.caption` loads: the weights of a checkpoint, tokenizer, backbone, calibration.

    backbone: as its features or `Backbone.describe` have it; if the checkpoint has other weights of it, these are
    written too. trained_on: folders of pairs and of their features, the first with the validation pairs. device: that
    calibrates. loaders: of a live backbone. told: how many of how many pairs the calibration has looked at.
    """
    weights, of_backbone = apart(checkpoint.load_weights(found.weights))
    model = build(config.model)
    model.load_state_dict(weights)
    seen = None
    if loaders is not None:
        network = Live(config.backbone, loaders).network().to(device)
        if of_backbone:
            network.net.load_state_dict(of_backbone)
        seen = network.seen
    calibration = calibrate(model.to(device).eval().requires_grad_(False), trained_on, device, loaders, seen, told)
    described = {name: value for name, value in backbone.items() if name != "conventions"}
    if config.backbone.mode == "live":
        described |= {"precision": config.cluster.precision}
    if of_backbone:
        described |= {"weights_sha256": tensors_sha256(of_backbone), "trained": config.backbone.train}
    model_folder.save(
        folder,
        config.model,
        weights,
        tokenizer,
        described,
        model_folder.Decoding(config.evaluate.beam, config.evaluate.length_penalty),
        {
            "run": config.name,
            "stage": found.commit.stage,
            "step": found.commit.step,
            "seed": config.seed,
            "validation": found.commit.validation,
        },
        calibration,
        (of_backbone, backbone["conventions"]) if of_backbone else None,
    )
