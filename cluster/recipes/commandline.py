"""The command line of `cluster/train.py`: a recipe or a config.yaml, a stage, dotted options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.config.fields import DERIVED, Config
from cluster.config.ignored import refuse_ignored
from cluster.config.options import from_dict, nearest, options, override, show, type_name
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.recipes.registry import BY_PAIRS, RECIPES
from idc.model.config import SIZES

DEFAULT_RECIPE = "blocks"
# train: all without evaluation; pretrain: every stage before fine-tuning
STAGE_CHOICES = ("all", "train", "pretrain", "finetune", "evaluate")
USAGE = (
    "usage: python cluster/train.py [RECIPE] [--stage all|train|pretrain|finetune|evaluate] [--seeds A,B,...] "
    "[--dotted.option value]..."
)


@dataclass(frozen=True)
class Command:
    """What the user asked for."""

    config: Config
    stage: str = "all"
    help: bool = False
    seeds: tuple[int, ...] = ()  # the command is for each of them, in place of the configuration's
    recipe: str = ""  # its name, or the file that the configuration is from
    given: frozenset[str] = frozenset()  # dotted options that were set
    pretraining: str = ""  # "edits": a run on edits of the pairs' own photos comes first

    @property
    def asked_stages(self) -> tuple[str, ...]:
        """The training stages that the command names, those without steps too."""
        asked = {"pretrain": tuple(self.config.pretraining), "finetune": ("finetune",), "evaluate": ()}
        return asked.get(self.stage, self.config.stages)

    @property
    def training_stages(self) -> tuple[str, ...]:
        """The training stages to run; those without steps are left out."""
        return tuple(name for name in self.asked_stages if self.config.stage(name).steps)

    @property
    def evaluates(self) -> bool:
        """True where captions are to be made and scored."""
        return self.stage in ("all", "evaluate")


@dataclass(frozen=True)
class Words:
    """The words of a command line, nothing looked up yet."""

    recipe: str | None
    options: tuple[tuple[str, str], ...]  # (name, value) in order
    flags: frozenset[str]  # options without a value that were given


def read_words(arguments: Sequence[str], usage: str, flags: Sequence[str] = ()) -> Words:
    """Splits arguments into the recipe, --name value or --name=value, and flags; ConfigError for what is none."""
    recipe, options, given = None, [], set()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("--help", "-h"):
            given.add("help")
        elif not word.startswith("-"):
            if recipe is not None:
                raise ConfigError(f"{word!r}: only one recipe can be given, and {recipe!r} is; {usage}")
            recipe = word
        elif not word.startswith("--"):
            raise ConfigError(f"{word!r} is not an option: options begin with --; {usage}")
        elif word[2:] in flags:
            given.add(word[2:])
        else:
            name, sign, value = word[2:].partition("=")
            if not sign:
                if not rest or rest[0].startswith("--"):
                    raise ConfigError(f"--{name} needs a value: --{name} VALUE")
                value = rest.pop(0)
            options.append((name, value))
    return Words(recipe, tuple(options), frozenset(given))


def parse(arguments: Sequence[str]) -> Command:
    """The command, its options applied and checked. ConfigError, one line, for whatever cannot be meant."""
    words = read_words(arguments, USAGE)
    stage = next((value for name, value in reversed(words.options) if name == "stage"), "all")
    if stage not in STAGE_CHOICES:
        raise ConfigError(f"--stage {stage!r} is not a stage{nearest(stage, STAGE_CHOICES)}")
    seeds = next((value for name, value in reversed(words.options) if name == "seeds"), None)
    if seeds is not None and any(name == "seed" for name, _ in words.options):
        raise ConfigError("--seed and --seeds: give one of the two")
    own = ("stage", "seeds", "pretraining")  # what is no option of the configuration
    changes = with_sizes([(name, value) for name, value in words.options if name not in own])
    name = words.recipe or DEFAULT_RECIPE
    pretraining = next((value for name, value in reversed(words.options) if name == "pretraining"), "")
    _check_pretraining(pretraining, name, dict(changes))
    recipe = load_recipe(name)
    config = override(recipe, changes, refuse=DERIVED)
    given = frozenset(option for option, _ in changes)
    several = () if seeds is None else read_seeds(seeds)
    command = Command(config, stage, "help" in words.flags, several, name, given, pretraining)
    validate(config, command.asked_stages)
    refuse_ignored(_with_edits(config) if pretraining else config, recipe)
    if stage in ("pretrain", "finetune") and not command.training_stages:
        names = config.pretraining if stage == "pretrain" else (stage,)
        steps = " and ".join(f"--{name}.steps" for name in names)
        raise ConfigError(f"--stage {stage} has nothing to do: {steps} {'is' if len(names) == 1 else 'are'} 0")
    return command


def _with_edits(config: Config) -> Config:
    """As if edits of some photos were the data: what decides these has an effect."""
    edits = dataclasses.replace(config.data.edits, photos=".")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source="edits", edits=edits))


def _check_pretraining(pretraining: str, recipe: str, options: Mapping[str, str]) -> None:
    """ConfigError where --pretraining is no choice, or cannot be meant beside the recipe and other options."""
    if not pretraining:
        return
    if pretraining != "edits":
        raise ConfigError(f"--pretraining {pretraining!r} is not a choice{nearest(pretraining, ('edits',))}")
    recipes = [name for name in BY_PAIRS if name != "edits"]
    if recipe not in recipes:
        raise ConfigError(f"--pretraining edits is for the recipes {', '.join(recipes)}, and this is {recipe}")
    if options.get("data.edits.photos"):
        raise ConfigError(
            "--data.edits.photos and --pretraining edits: leave it out, the photos are those of the pairs"
        )
    if options.get("init"):
        raise ConfigError("--init and --pretraining edits: give one of the two, each is where a run starts from")


def with_sizes(changes: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """--model.size NAME as the options that it stands for, before all others: these may change single ones of them."""
    named = [value for name, value in changes if name == "model.size"]
    if unknown := [value for value in named if value not in SIZES]:
        raise ConfigError(f"--model.size {unknown[0]!r} is no size{nearest(unknown[0], SIZES)}")
    meant = [(f"model.{field}", str(value)) for size in named for field, value in SIZES[size].items()]
    return meant + [(name, value) for name, value in changes if name != "model.size"]


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of --seeds; ConfigError where they are no two or more different whole numbers."""
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise ConfigError(f"--seeds {text!r} must be whole numbers with commas between them, such as 0,1,2")
    seeds = tuple(map(int, numbers))
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ConfigError(f"--seeds {text!r} has {twice[0]} more than once: the same seed gives the same run")
    if len(seeds) < 2:
        raise ConfigError(
            f"--seeds {text!r} is one seed, and a spread needs two or more; for one run give --seed {text}"
        )
    return seeds


def load_recipe(name: str) -> Config:
    """The configuration of a recipe, or of a YAML file such as runs/NAME/config.yaml."""
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"no recipe {name!r}{nearest(name, RECIPES)}")
    return read_config(path)


def read_config(path: Path) -> Config:
    """The configuration in a YAML file; ConfigError naming the file where it is not one."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not YAML") from None
    try:
        return from_dict(Config(), _of_today(values))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _of_today(values: Any) -> Any:
    """What a file says, also one of a version in which each stage had a `start_from`: the first one's is `init`."""
    tables = [values.get("pretraining"), {"finetune": values.get("finetune")}] if isinstance(values, dict) else []
    stages = [stage for table in tables if isinstance(table, dict) for stage in table.values()]
    starts = [
        start
        for stage in stages
        if isinstance(stage, dict) and (start := stage.pop("start_from", None)) is not None and stage.get("steps")
    ]
    return values | {"init": starts[0]} if starts and starts[0] else values


def help_text(config: Config) -> str:
    """Usage, recipes and every option with its default in this recipe."""
    lines = [USAGE, "", "Recipes (or a config.yaml of a run):"]
    width = max(map(len, RECIPES)) + 2
    lines += [f"  {name:{width}}{(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items()]
    lines += ["", f"Options, with their values in the recipe {config.name!r}:"]
    lines.append(f"  {'--stage ' + '|'.join(STAGE_CHOICES):48} [all]")
    lines.append(
        f"  {'--seeds INT,INT,...':48} []  a run of each in runs/NAME-seeds, then mean and spread of their scores"
    )
    lines.append(f"  {'--pretraining edits':48} []  first a run on edits of the pairs' own training photos, NAME-edits")
    lines.append(f"  {'--model.size ' + '|'.join(SIZES):48} []  d_model, heads, d_ff, cross_modal_blocks, cell_size")
    for option in options(config):
        if option.name not in DERIVED:
            line = f"  {f'--{option.name} {_short(type_name(option.type))}':48} [{show(option.value)}]"
            lines.append(f"{line}  {option.comment}".rstrip())
    return "\n".join(lines)


def _short(kind: str) -> str:
    """A type's name for a narrow column: the keys of a table are in the recipes."""
    return "NAME=" + kind.rpartition("=")[2] if "=" in kind else kind
