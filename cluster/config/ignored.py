"""Options that have no effect beside others: who sets one is told so, before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.config.fields import Config, FinetuneConfig, StageConfig
from cluster.config.options import options, show
from cluster.config.tasks import TASKS, compares_samples, weighed
from cluster.errors import ConfigError

PROFILED_FROM = 20  # steps of a stage before those that --log.profile_steps records


def refuse_ignored(config: Config, recipe: Config) -> None:
    """Raises ConfigError for a value that `config` has other than its recipe and that nothing looks at.

    What a recipe itself leaves unused is not looked at: its options may be of use beside others that are set.
    """
    unused, before = dict(_unused(config)), _flat(recipe)
    for name, value in _flat(config).items():
        why = unused.get(name) or unused.get(name.rpartition(".")[0] + ".")
        # An entry of 0 says that something is not wanted, and it is not there.
        if why and value and before.get(name) != value:
            raise ConfigError(f"--{name} {show(value)} has no effect: {why}; leave it out")


def _flat(config: Config) -> dict[str, object]:
    """Every option and its value, entries of tables one by one."""
    found: dict[str, object] = {}
    for option in options(config):
        if isinstance(option.value, dict):
            found |= {f"{option.name}.{key}": value for key, value in option.value.items()}
        else:
            found[option.name] = option.value
    return found


def _unused(config: Config) -> Iterator[tuple[str, str]]:
    """(option, or all that begin with it where it ends in a dot; why it has no effect)."""
    data, stages = config.data, {name: config.stage(name) for name in config.stages if config.stage(name).steps}
    drawn = {task for stage in stages.values() for task, ratio in stage.ratios.items() if ratio}
    for source in ("blocks", "edits"):
        if data.source != source:
            packs = "nothing" if data.source == "none" else data.source
            yield f"data.{source}.", f"--data.source {data.source} packs {packs}"
    if data.source == "edits" and not data.edits.photos:
        yield "data.edits.", "--data.edits.photos is empty, so nothing is packed"
    if data.source == "none" and not (data.mix or data.photos):
        yield "data.tokenizer", "nothing is packed, and the captions are those of one folder, with its tokenizer"
    yield from _unused_of_backbone(config)
    if config.model.architecture == "paper":
        for field in ("regions", "novelties", "pooled", "cell_size"):
            yield f"model.{field}", "--model.architecture is paper"
        yield "data.words", "only --model.architecture idc looks for words of captions in images"
    if data.classes and not drawn & {"classify", "class_labels"} and (data.words or config.model.architecture != "idc"):
        yield "data.classes", "no stage draws classify or class_labels"
    if config.evaluate.beam == 1:
        yield "evaluate.length_penalty", "captions are decoded greedily, with --evaluate.beam 1"
    if config.log.wandb == "disabled":
        yield "log.project", "--log.wandb is disabled"
    if all(stage.steps <= PROFILED_FROM for stage in stages.values()):
        yield "log.profile_steps", f"it begins after {PROFILED_FROM} steps, and no stage has more"
    earlier = ""
    for name, stage in stages.items():
        yield from ((f"{name}.{option}", why) for option, why in _unused_in_stage(stage))
        if not (earlier or config.init):
            yield f"{name}.start_parts", "no stage comes before, and --init is empty"
        earlier = name


def _unused_of_backbone(config: Config) -> Iterator[tuple[str, str]]:
    backbone = config.backbone
    if backbone.mode == "cached":
        why = "--backbone.mode cached reads features, and no images, in training"
        yield from ((option, why) for option in ("data.augment.", "data.loaders"))
    else:
        why = "--backbone.mode live reads images, and no features, in training"
        yield from ((option, why) for option in ("data.features", "data.features_on"))
    if backbone.train == "none":
        yield from ((f"backbone.{name}", "--backbone.train is none") for name in ("lr", "lr_decay", "checkpointing"))


def _unused_in_stage(stage: StageConfig) -> Iterator[tuple[str, str]]:
    tasks = {task for task, ratio in stage.ratios.items() if ratio}
    finetunes = isinstance(stage, FinetuneConfig)
    losses = {loss for task in tasks for loss, weight in weighed(task, stage.weights).items() if weight}
    for task in stage.batch_sizes.keys() - tasks:
        yield f"batch_sizes.{task}", "the stage does not draw this task"
    for loss in stage.weights.keys() - losses:
        yield f"weights.{loss}", "no task of the stage has this loss"
    if "fda" not in losses:
        why = "the stage has no fda loss" + (" (--finetune.weights.fda is 0)" if finetunes else "")
        yield from ((option, why) for option in ("negatives.", "fda_temperature"))
    if "mvcl" not in losses:
        yield "mvcl_temperature", "the stage has no mvcl loss"
    if not any(map(compares_samples, tasks)):
        comparing = ", ".join(sorted(filter(compares_samples, TASKS)))
        yield "contrastive_group", f"the stage draws none of {comparing}"
    if "classify" not in tasks:
        yield "same_class_share", "the stage does not draw classify"
    if not losses & {"mlm", "caption"}:
        yield "label_smoothing", "the stage has no loss over words"
    if isinstance(stage, FinetuneConfig) and not stage.validate_every:
        yield "validate_limit", "--finetune.validate_every is 0"
        if stage.select != "last":
            yield "select", "--finetune.validate_every is 0, so there are no scores to choose by"
