"""The command line of `tune/sweep.py`: a recipe, the sweep's own options, values and ranges of any other option."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml

from cluster import CODE
from cluster.config.fields import Config, is_harmless
from cluster.config.options import differences, nearest, override, show, to_yaml
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.launch.run_folder import find_root
from cluster.recipes.commandline import DEFAULT_RECIPE, load_recipe, read_config, read_words
from cluster.recipes.sizes import with_sizes_of
from shards.format.whole_files import write_whole
from tune.search.dimension import SYNTAX, is_range, option_values
from tune.search.plan import GRID, PBT, SEARCHES, SWEEPS, TPE, Plan, Sweep
from tune.search.points import grid_size, how_many_left
from tune.search.space import apply_options, setting_of
from tune.search.table import Table

USAGE = (
    "usage: python tune/sweep.py [RECIPE] [--trials N] [--add N] [--search S] [--top K] [--repeats N] [--resume] "
    "[--OPTION VALUE|RANGE]..."
)
DEFAULT_TRIALS = 16
# Cheap and honest: six runs more at most. Two that had no part in the choice tell a lucky trial from a good one.
DEFAULT_TOP, DEFAULT_REPEATS = 3, 2
HELP = f"""{USAGE}

Trains a recipe many times with other loss weights, temperatures and so on, and reports what they do to CIDEr on the
validation split. The best few are then trained again with further seeds, and the best mean over these wins. The same
command again goes on where it was stopped, and does nothing twice.

  --trials N       trials of the sweep, of a population its members [16; a grid: all its points]
  --add N          more trials, once all that were asked for are there
  --search S       tpe: Optuna's TPE; random; grid: all combinations of the choices that are given, all else as in the
                   recipe; pbt: population based training of --finetune options [tpe]
  --top K          finished trials that are trained again with further seeds: the best K [{DEFAULT_TOP}]
  --repeats N      further seeds, from the recipe's own + 1 on; 0: none, and one seed decides [{DEFAULT_REPEATS}]
  --resume         goes on with the sweep --name (or of the recipe) without repeating its options
  --name NAME      of the folder, runs/sweeps/NAME [the recipe's name]
  --OPTION VALUE   any option of cluster/train.py, in all trials; of one that is varied: it is not
  --OPTION RANGE   varies it: {SYNTAX}
"""
FILE, CONFIG = "sweep.yaml", "config.yaml"


def parse(arguments: Sequence[str]) -> Sweep:
    """The sweep, looked up and checked, compared with what its folder says. ConfigError for whatever cannot be meant.

    Nothing is written.
    """
    words = read_words(arguments, USAGE, flags=("resume",))
    options = dict(words.options)
    names = ("trials", "add", "search", "top", "repeats", "name")
    own: dict[str, str] = {name: options.pop(name) for name in names if name in options}
    root = find_root(options.get("root", ""), CODE)
    given = tuple(option for option in options.items() if option[0] != "root")
    recipe, search = words.recipe or DEFAULT_RECIPE, own.get("search", TPE)
    name = own.get("name") or load_recipe(recipe).name
    saved = _saved(root / "runs" / SWEEPS / name)
    if "resume" in words.flags:
        if saved is None:
            raise ConfigError(f"--resume: there is no sweep {root / 'runs' / SWEEPS / name}; leave --resume out")
        left = [*dict(given), *(["search"] if "search" in own else [])]
        if left:
            raise ConfigError(f"--resume takes the options of the first command: leave out --{left[0]}")
        given = tuple((option, value) for option, value in saved["given"])
        recipe, search = saved["recipe"], saved["search"]
    if search not in SEARCHES:
        raise ConfigError(f"--search {search!r} is not a search{nearest(search, SEARCHES)}")
    plan = _plan(recipe, given, name, root, search)
    numbers = {name: _number(own, name) for name in ("trials", "add", "top", "repeats")}
    target = _target(plan, numbers, saved)
    if saved is not None:
        _check_same(plan, saved)
    top, repeats = numbers["top"], numbers["repeats"]
    top = (saved or {}).get("top", DEFAULT_TOP) if top is None else top
    repeats = (saved or {}).get("repeats", DEFAULT_REPEATS) if repeats is None else repeats
    if any("seed" in one.options for one in plan.dimensions):
        if numbers["repeats"]:
            raise ConfigError("--repeats: the sweep varies --seed itself; leave one of the two out")
        repeats = 0
    return Sweep(plan, recipe, given, target, top, repeats, "help" in words.flags)


def _number(own: dict[str, str], option: str) -> int | None:
    """The value of one of the sweep's own options; None if it is not given. ConfigError if it is no such number."""
    text, least = own.get(option), 0 if option == "repeats" else 1
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ConfigError(f"--{option} {text!r} must be a whole number{'' if least == 0 else ' above 0'}")
    return int(text)


def _plan(recipe: str, given: Sequence[tuple[str, str]], name: str, root: Path, search: str) -> Plan:
    config = load_recipe(recipe)
    if "cluster.workers" not in dict(given):
        # One worker each trains more trials in the same time than several that wait for each other.
        config = override(config, [("cluster.workers", "1")])
    config, dimensions = apply_options(config, given)
    config = with_sizes_of(config, recipe, [option for option, _ in given], root)
    config = dataclasses.replace(config, name=name)
    validate(config)
    if not config.finetune.steps or not config.finetune.validate_every:
        raise ConfigError("a sweep compares validation scores: set --finetune.steps and --finetune.validate_every")
    if search == PBT:
        elsewhere = [one.name for one in dimensions if not one.name.startswith("finetune.")]
        asked = [option for option in elsewhere if is_range(dict(given).get(option, ""))]
        if asked:
            raise ConfigError(f"--{asked[0]}: PBT goes by validation scores, so it can vary --finetune options alone")
        dimensions = tuple(one for one in dimensions if one.name not in elsewhere)
        # Others go on from the last weights of a member, so those are what it is judged by.
        if dict(given).get("finetune.select", "last") != "last":
            raise ConfigError("--finetune.select: PBT goes by the last checkpoint of each member; leave it out")
        config = override(config, [("finetune.select", "last")])
        # Others may go on from any checkpoint that was scored. Those in between would push them out: none are made.
        every = config.finetune.validate_every
        kept = max(config.finetune.steps // every + 1, config.finetune.keep)
        config = override(config, [("finetune.keep", str(kept)), ("finetune.checkpoint_every", str(every))])
    if search == GRID:
        # All combinations of what is named; nobody wants those of twenty ranges.
        dimensions = tuple(one for one in dimensions if one.name in dict(given))
    if not dimensions:
        raise ConfigError(f"nothing is varied: give an option a range, {SYNTAX}")
    return Plan(name, root, config, dimensions, search)


def _target(plan: Plan, numbers: dict[str, int | None], saved: dict | None) -> int:
    if numbers["add"] and numbers["trials"]:
        raise ConfigError("--add is to what was asked for before: leave out --trials")
    if plan.search == GRID:
        size = grid_size(plan.dimensions)
        if numbers["add"]:
            raise ConfigError(f"--add: a grid has its {size} points and no more")
        return min(numbers["trials"] or size, size)
    if numbers["add"]:
        if saved is None:
            raise ConfigError("--add: there is no such sweep yet; give --trials")
        # The same command again after a kill adds nothing: it goes on with what it had added.
        reached = how_many_left(plan, Table(plan.folder), saved["trials"]) == 0
        return saved["trials"] + (numbers["add"] if reached else 0)
    return numbers["trials"] or (saved["trials"] if saved else DEFAULT_TRIALS)


def _saved(folder: Path) -> dict | None:
    """What the sweep's folder says it does; None where it has not begun."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        saved = yaml.safe_load(path.read_bytes())
        _ = saved["recipe"], saved["given"], saved["search"], saved["trials"], saved["space"]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        raise ConfigError(f"{path} is not a sweep's; choose another --name") from None
    return saved | {"config": read_config(folder / CONFIG)}


def _check_same(plan: Plan, saved: dict) -> None:
    space = {one.name: str(one) for one in plan.dimensions}
    for name, new, old in [
        ("search", plan.search, saved["search"]),
        *((name, space.get(name, "fixed"), saved["space"].get(name, "fixed")) for name in space | saved["space"]),
        *differences(_comparable(plan.config), _comparable(saved["config"])),
    ]:
        if new != old and not is_harmless(name):
            raise ConfigError(
                f"{plan.folder} was begun with --{name} {_text(old)} and this command has {_text(new)}: give the old "
                f"value to go on, or another --name to begin anew"
            )


def _comparable(config: Config) -> Config:
    return dataclasses.replace(config, root="")


def _text(value: object) -> str:
    return value if isinstance(value, str) else show(value)


def save(sweep: Sweep) -> None:
    """Writes what the sweep does into its folder."""
    plan = sweep.plan
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_whole(plan.folder / CONFIG, to_yaml(plan.config))
    space = {one.name: str(one) for one in plan.dimensions}
    saved = {"recipe": sweep.recipe, "given": [list(one) for one in sweep.given], "search": plan.search,
             "trials": sweep.target, "top": sweep.top, "repeats": sweep.repeats, "space": space}  # fmt: skip
    write_whole(plan.folder / FILE, yaml.safe_dump(saved, sort_keys=False, width=120))


def command_of(sweep: Sweep, values: dict) -> list[str]:
    """The command that trains and evaluates the recipe with a trial's values."""
    plan = sweep.plan
    words = ["python", "cluster/train.py", sweep.recipe, "--name", f"{plan.name}-best"]
    fixed = dict(option for option in sweep.given if not is_range(option[1]))
    settings = [(option, value) for name, value in fixed.items() for option in setting_of(name)]
    if "cluster.workers" not in fixed:
        settings.append(("cluster.workers", "1"))
    if plan.search == PBT and "finetune.select" not in fixed:
        settings.append(("finetune.select", plan.config.finetune.select))
    for option, value in settings + option_values(plan.dimensions, values):
        words += [f"--{option}", value]
    return words


def best_recipe(sweep: Sweep, values: dict) -> str:
    """The same as a YAML file that `cluster/train.py` takes for a recipe."""
    config = dataclasses.replace(sweep.plan.config_of(values), name=f"{sweep.plan.name}-best", root="")
    return to_yaml(config)
