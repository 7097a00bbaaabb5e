"""Makes the data of a run ready: packs the embedded set and caches features where they are missing, reads off sizes.

By itself, as for a job that needs no GPU: python -m cluster.prepare [RECIPE] [--dotted.option value]...
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from cluster.batches.feature_cache import Extraction, cache_features, known, open_features
from cluster.batches.joint_tokenizer import joint_tokenizer, training_captions
from cluster.batches.prepared import Data, Training
from cluster.batches.samples import Mixed
from cluster.config.fields import HOLDOUT, Config
from cluster.config.options import show
from cluster.config.tasks import TASKS
from cluster.errors import ConfigError
from cluster.launch.run_folder import find_root
from cluster.recipes.commandline import help_text, parse
from cluster.recipes.edits_first import first_run
from cluster.training.weights import open_tokenizer
from idc.backbone.backbone import Backbone
from idc.backbone.layout import Layout, layout
from idc.backbone.weights import BackboneError
from idc.metrics import words
from idc.metrics.java_process import java_fault
from idc.model.config import ConfigError as ModelError
from idc.model.regions import require_room
from shards.errors import DataError, run_main
from shards.order.mixture import parse_weight
from shards.progress import say
from shards.reading.object_store import is_url
from shards.reading.reader import Folder
from shards.wording.frequent_words import FEWEST, frequent_words


def prepare_training(config: Config, root: Path) -> Training:
    """All folders that the run trains on, with their features and the tokenizer, made where missing."""
    require_folders(config, root)
    check_backbone(config, root)
    data, mixed = prepare(config, root), prepare_mixed(config, root)
    photos = _prepare_kind(config, root, "photo", "--data.photos", config.data.photos)
    classes = _prepare_kind(config, root, "class", "--data.classes", config.data.classes)
    texts = [(data.shards, "pair"), *((Folder.open(folder.shards), "pair") for folder in mixed)]
    texts += [(photos.shards, "photo")] if photos else []
    several = len({shards.sha256() for shards, _ in texts}) > 1
    tokenizer = joint_tokenizer(texts, config.data.tokenizer, root / "data") if several else None
    return Training(data, _names(config, texts, classes or data), mixed, photos, classes, tokenizer)


def require_folders(config: Config, root: Path, evaluates: bool = False) -> None:
    """ConfigError for a folder that an option names and that nothing would make; `evaluates`: what is scored too."""
    named = [("--data.mix", name) for name in config.data.mix]
    named += [("--data.photos", config.data.photos), ("--data.classes", config.data.classes)]
    named += [("--evaluate.shards", config.evaluate.shards)] if evaluates else []
    for option, name in named:
        place = _place(root, name)
        if name and isinstance(place, Path) and not place.is_dir():
            raise _no_folder(option, place)


def check_backbone(config: Config, root: Path) -> None:
    """Errors of a backbone that cannot be had, or that has no room for the tokens, before data are made for it."""
    place = _place(root, config.data.shards)
    cached = (
        config.backbone.mode == "cached"
        and isinstance(place, Path)
        and known(_own_features(config, root) or _beside(config, place), _extraction(config))
    )
    try:
        model = dataclasses.replace(config.model, **(_feature_sizes(cached) if cached else backbone_sizes(config)))
        if model.architecture == "idc":
            require_room(model)
    except ModelError as error:
        raise ConfigError(f"--model: {error}") from None
    if not cached:
        _backbone(config)


def _extraction(config: Config) -> Extraction:
    backbone = config.backbone
    extraction = Extraction(backbone.name, backbone.weights, backbone.size, backbone.strides)
    return extraction.on("cpu") if config.cluster.gpus_per_worker == 0 else extraction


def _backbone(config: Config) -> Backbone:
    """On a CPU, where it is described and not run. DataError where it cannot be had, or not be trained as asked."""
    backbone = _extraction(config).on("cpu").build()
    if config.backbone.train != "none":
        try:
            copy.deepcopy(backbone.network).train_parts(config.backbone.train)
        except BackboneError as error:
            raise ConfigError(f"--backbone.train {error}") from None
    return backbone


def backbone_sizes(config: Config) -> dict:
    """The fields of a model that its backbone decides, without its weights. DataError where there is no such one."""
    taken = _layout(config)
    return _feature_sizes({"grid": taken.grid, "dim": taken.dim, "strides": taken.strides, "channels": taken.channels})


def _layout(config: Config) -> Layout:
    try:
        return layout(config.backbone.name, config.backbone.size, config.backbone.strides)
    except BackboneError as error:
        raise DataError(str(error)) from None


def _feature_sizes(made: dict) -> dict:
    """The fields of a model that its features decide."""
    return {"grid": tuple(made["grid"]), "feature_dim": made["dim"], "fine_channels": _fine_channels(made)}


def _fine_channels(made: dict) -> int:
    """Channels of each of the 2 x 2 fine cells that a cell begins with; 0: it has none."""
    strides = made["strides"]
    return made["channels"][0] if len(strides) == 2 and strides[1] == 2 * strides[0] else 0


def _names(config: Config, texts: Sequence[tuple[Folder, str]], classes: Data) -> tuple[str, ...]:
    """The classes; or frequent words of the captions of photos and of pairs that have changed."""
    if not config.data.words:
        return tuple(classes.shards.manifest["classes"])
    texts = [*texts, (texts[0][0], "photo")]
    captions = [text for shards, of in texts for text in training_captions(shards, of, changed_only=True)]
    names = tuple(frequent_words(captions, config.data.words))
    if not names:
        where = texts[0][0].location
        raise ConfigError(f"--data.words: no adjective or noun is in {FEWEST} captions of {where}: pack more pairs")
    return names


def prepare(config: Config, root: Path) -> Data:
    """The run's training data, made where missing. ConfigError naming the option and the command where it cannot be."""
    place = _place(root, config.data.shards)
    if isinstance(place, Path) and not (place / "manifest.json").is_file():
        _pack_missing(config, root, place)
    shards = Folder.open(place)
    _check_packed(config, shards)
    return _with_features(config, root, shards, _own_features(config, root))


def prepare_mixed(config: Config, root: Path) -> tuple[Mixed, ...]:
    """The folders of --data.mix with their features, made where missing. ConfigError where one has no pairs."""
    found = []
    for name, weight in config.data.mix.items():
        place = _place(root, name)
        if isinstance(place, Path) and not place.is_dir():
            raise _no_folder("--data.mix", place)
        shards = Folder.open(place)
        if not shards.manifest["splits"].get("train", {}).get("pair", 0):
            raise ConfigError(f"--data.mix {name}: {place} has no pairs in train; leave it out")
        data = _with_features(config, root, shards, None)
        found.append(dataclasses.replace(data.place, weight=parse_weight(str(weight))))
    return tuple(found)


def _prepare_kind(config: Config, root: Path, kind: str, option: str, name: str) -> Data | None:
    """The folder that an option names for samples of one kind; None where it names none."""
    if not name:
        return None
    place = _place(root, name)
    if isinstance(place, Path) and not place.is_dir():
        raise _no_folder(option, place)
    shards = Folder.open(place)
    if not shards.manifest["splits"].get("train", {}).get(kind, 0):
        raise ConfigError(f"{option} {name}: {place} has no {kind} samples in train; leave it out")
    return _with_features(config, root, shards, None)


def prepare_evaluation(config: Config, root: Path, data: Data | None) -> Data:
    """What --evaluate.shards names, the scenes that are held out, or the run's own data."""
    if config.evaluate.split == HOLDOUT:
        return _prepare_holdout(config, root)
    if not config.evaluate.shards:
        return data if data is not None else prepare(config, root)
    place = _place(root, config.evaluate.shards)
    if isinstance(place, Path) and not place.is_dir():
        raise _no_folder("--evaluate.shards", place)
    return _with_features(config, root, Folder.open(place), None)


def _prepare_holdout(config: Config, root: Path) -> Data:
    """The held-out scenes in the look of the run's own, as the test split of a folder of theirs; made where missing.

    It lies beside the run's own, or in data/ where these are at a URL. DataError where it holds another look.
    """
    from shards.pack import pack
    from shards.sources.blocks import BlocksHoldout

    own = _place(root, config.data.shards.rstrip("/"))
    own = own if isinstance(own, Path) else root / "data" / own.rpartition("/")[2]
    path = own.with_name(f"{own.name}-{HOLDOUT}")
    pack(BlocksHoldout(**dataclasses.asdict(config.data.blocks)), path, workers=_workers(config))
    return _with_features(config, root, Folder.open(path), None)


def _place(root: Path, shards: str) -> str | Path:
    """A shard folder's URL, or its path below the root."""
    return shards if is_url(shards) else root / shards


def _no_folder(option: str, path: Path) -> ConfigError:
    made = f"python -m shards.pack SOURCE --root DIR --out {path}"
    return ConfigError(f"{option} {path}: no such folder; make it with {made}")


def _workers(config: Config) -> int:
    return config.data.pack_workers or len(os.sched_getaffinity(0))


def _pack_missing(config: Config, root: Path, path: Path) -> None:
    if config.data.source == "none":
        raise _no_folder("--data.shards", path)
    from shards.pack import pack
    from shards.sources import make_source

    options = dataclasses.asdict(getattr(config.data, config.data.source))
    if (photos := options.pop("photos", None)) == "":
        raise ConfigError(
            f"--data.edits.photos is empty and there is no {path}: name a folder of photos, or pack one with "
            f"python -m shards.pack edits --root PHOTOS --out {path}"
        )
    options |= {name: str(root / value) for name, value in options.items() if name == "cutouts" and value}
    source = make_source(config.data.source, root / photos if photos else None, options)
    pack(source, path, workers=_workers(config), tokenizer=config.data.tokenizer)


def _check_packed(config: Config, shards: Folder) -> None:
    """ConfigError where a folder was packed with other options than those that the recipe would pack it with."""
    manifest, source = shards.manifest, config.data.source
    if source == "none" or manifest["source"] != source:
        return
    if source == "edits" and not config.data.edits.photos:  # whoever packed it chose
        return
    options = dataclasses.asdict(getattr(config.data, source))
    wanted = {f"{source}.{name}": value for name, value in options.items() if name not in ("photos", "cutouts")}
    for name, value in (wanted | {"tokenizer": config.data.tokenizer}).items():
        found = manifest["options"].get(name.removeprefix(f"{source}."))
        if found != (list(value) if isinstance(value, tuple) else value):
            raise ConfigError(
                f"{shards.location} was packed with {show(found)} for --data.{name}, which is {show(value)}: name "
                f"another folder with --data.shards, delete this one, or take its value"
            )


def _with_features(config: Config, root: Path, shards: Folder, path: Path | None) -> Data:
    if config.backbone.mode == "live":
        backbone = _backbone(config)
        return Data(shards, None, backbone.describe() | {"conventions": backbone.conventions})
    place = root / "data" / shards.path.name if shards.cache else shards.path
    path = path or _beside(config, place)
    cache_features(shards.location, path, _extraction(config), _workers(config))
    return Data(shards, open_features(path, shards))


def _own_features(config: Config, root: Path) -> Path | None:
    return root / config.data.features if config.data.features else None


def _beside(config: Config, place: Path) -> Path:
    """The features of a folder of images, if no option names them."""
    (height, width), strides = config.backbone.size, "".join(f"-{stride}" for stride in config.backbone.strides)
    return place.with_name(f"{place.name}-{config.backbone.name}-{height}x{width}{strides}")


def with_sizes(config: Config, training: Training, stages: Sequence[str] | None = None) -> Config:
    """The configuration with the sizes that the data decide; ConfigError where they lack what a task needs.

    `stages`: the training stages that a command runs, None: all.
    """
    data, stages = training.data, config.stages if stages is None else stages
    manifest, features = data.shards.manifest, data.backbone
    for name in stages:
        stage = config.stage(name)
        for task, ratio in stage.ratios.items():
            kind = TASKS[task].stream
            shards = training.of(kind).shards
            if stage.steps and ratio and not shards.manifest["splits"].get("train", {}).get(kind, 0):
                option = {"pair": "--data.shards", "photo": "--data.photos", "class": "--data.classes"}[kind]
                raise ConfigError(
                    f"--{name}.ratios.{task} needs {kind} samples and {shards.location} has none in train: set it to "
                    f"0, or name a folder that has them with {option}"
                )
    validates = "finetune" in stages and config.finetune.steps and config.finetune.validate_every
    if validates and not manifest["splits"].get("val", {}).get("pair", 0):
        where = data.shards.location
        raise ConfigError(f"--finetune.validate_every: {where} has no pairs in its val split; set it to 0")
    if config.model.architecture == "idc" and not training.names:
        raise ConfigError(
            f"{training.of('class').shards.location} has no classes that could name what there is to see: set "
            f"--data.words 200 to take words of the captions, or --model.architecture paper"
        )
    sizes = {
        "vocab_size": open_tokenizer(data.shards.location, training.tokenizer).size,
        "classes": len(training.names),
        "attributes": bool(config.data.words),
        **_feature_sizes(features),
    }
    try:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None


def say_if_no_java(config: Config) -> None:
    """A line before anything is made, where the captions at the end could not be scored in full."""
    if fault := java_fault():
        instead = f", and {words.NAME} in place of ptb as the tokenizer" if config.evaluate.tokenizer == "ptb" else ""
        say(f"captions will have no METEOR{instead}: {fault}")


def main(arguments: Sequence[str]) -> int:
    """Packs and caches what the recipe trains on and is evaluated on; exit code 0, 2 (by run_main) for mistakes."""
    command = parse(arguments)
    if command.help:
        print(help_text(command.config).replace("cluster/train.py", "-m cluster.prepare", 1))
        return 0
    root = find_root(command.config.root, Path(__file__).resolve().parents[1])
    if command.evaluates:
        say_if_no_java(command.config)
    if command.pretraining:
        prepare_training(first_run(command, root).config, root)
    training = prepare_training(command.config, root)
    with_sizes(command.config, training, command.asked_stages)
    prepare_evaluation(command.config, root, training.data)
    say(f"the data of {command.config.name} are ready in {root}")
    return 0


if __name__ == "__main__":
    run_main(main)
