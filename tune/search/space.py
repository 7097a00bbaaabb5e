"""What a sweep varies, unless its command says otherwise. Change the two tables, or give any option a range.

`--pretrain.mvcl_temperature log:0.02..1` varies an option in this range, `--pretrain.mvcl_temperature 0.1` fixes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.config.fields import DERIVED, Config, FinetuneConfig, StageConfig, is_harmless
from cluster.config.options import override
from cluster.errors import ConfigError
from tune.search.dimension import Dimension, Value, is_range, parse_dimension, value_of, with_values


@dataclass(frozen=True)
class Varied:
    """A row of the tables: an option of a stage, its range, and the tasks one of which the stage must draw."""

    option: str
    range: str
    tasks: tuple[str, ...] = ()  # empty: whatever it draws
    times: bool = False  # the ends are factors of the recipe's own value


MLM, MVCL, FDA = ("mlm", "photo_mlm"), ("mvcl", "photo_mvcl"), ("fda", "photo_fda")
KINDS = "choice:matched/retrieve/replace/confuse/replace,confuse/retrieve,replace,confuse"

# Ratios are relative to each other, so one of them, that of MLM, stays.
PRETRAINING = (
    Varied("weights.mlm", "log:0.25..4", MLM),
    Varied("weights.mvcl", "log:0.25..4", MVCL),
    Varied("weights.fda", "log:0.25..4", FDA),
    Varied("weights.classify", "log:0.25..4", ("classify",)),
    Varied("ratios.mvcl", "log:0.5..8", ("mvcl",)),
    Varied("ratios.fda", "log:0.5..8", ("fda",)),
    Varied("ratios.classify", "log:0.25..4", ("classify",)),
    Varied("mvcl_temperature", "log:0.02..2", MVCL),
    Varied("fda_temperature", "log:0.02..2", FDA),
    Varied("negatives.count", "1..6", FDA),
    Varied("negatives.kinds", KINDS, FDA),
    Varied("lr", "log:0.33..3", MLM + MVCL + FDA + ("classify",), times=True),
)
# FDA beside the captions, where the recipe has it: --finetune.weights.fda 0.2 turns it on.
FINETUNING = (
    Varied("weights.changed", "log:0.05..2"),
    Varied("weights.fda", "log:0.05..2", FDA),
    Varied("fda_temperature", "log:0.02..2", FDA),
    Varied("negatives.count", "1..6", FDA),
    Varied("negatives.kinds", KINDS, FDA),
    Varied("lr", "log:0.33..3", times=True),
)
# Names that set several options at once.
TOGETHER = {"weights.classify": ("weights.class", "weights.match", "weights.class_contrastive")}


def setting_of(name: str) -> tuple[str, ...]:
    """The options of the configuration that a name on the command line sets."""
    stage, _, option = name.partition(".")
    return tuple(f"{stage}.{one}" for one in TOGETHER.get(option, (option,))) if option else (name,)


def apply_options(config: Config, given: Sequence[tuple[str, str]]) -> tuple[Config, tuple[Dimension, ...]]:
    """The recipe with the fixed options of the command line, and the dimensions: the tables' and the given ranges.

    Raises ConfigError for what is misspelt or impossible.
    """
    fixed = {name: value for name, value in given if not is_range(value)}
    ranges = {name: value for name, value in given if is_range(value)}
    both = sorted(fixed.keys() & ranges.keys())
    if both:
        raise ConfigError(f"--{both[0]} is given a value and a range: give one of the two")
    changes = [(option, value) for name, value in fixed.items() for option in setting_of(name)]
    config = override(config, changes, refuse=DERIVED)
    settled = [option for name in [*fixed, *ranges] for option in (name, *setting_of(name))]
    # An option that is given settles it, and a table that is given all its entries.
    own = {
        name: text
        for name, text in _from_tables(config).items()
        if not any(f"{option}.".startswith(f"{given}.") for option in (name, *setting_of(name)) for given in settled)
    }
    wanted = own | ranges
    for name in ranges:
        if name in ("name", "root") or is_harmless(name) or name in DERIVED or name.startswith("cluster."):
            raise ConfigError(f"--{name} does not change what is learned, so it cannot be varied: give it a value")
    return config, tuple(parse_dimension(config, name, setting_of(name), text) for name, text in wanted.items())


def _from_tables(config: Config) -> dict[str, str]:
    found = {}
    for stage_name in config.stages:
        stage = config.stage(stage_name)
        for row in (FINETUNING if isinstance(stage, FinetuneConfig) else PRETRAINING) if stage.steps else ():
            if not _matters(stage, row):
                continue
            text = row.range
            if row.times:
                own = float(value_of(config, f"{stage_name}.{row.option}"))
                low, high = (float(end) * own for end in text.removeprefix("log:").split(".."))
                text = f"log:{low:.6g}..{high:.6g}"
            found[f"{stage_name}.{row.option}"] = text
    return found


def _matters(stage: StageConfig, row: Varied) -> bool:
    if not row.tasks or any(stage.ratios.get(task) for task in row.tasks):
        return True
    return isinstance(stage, FinetuneConfig) and row.tasks == FDA and stage.weights.get("fda", 0) > 0


def recipe_point(config: Config, dimensions: Sequence[Dimension]) -> dict[str, Value] | None:
    """The recipe's own values, the first to be tried; None where one lies outside its range."""
    values = {one.name: value_of(config, one.options[0]) for one in dimensions}
    if not all(one.has(values[one.name]) for one in dimensions):
        return None
    return values if with_values(config, dimensions, values) else None
