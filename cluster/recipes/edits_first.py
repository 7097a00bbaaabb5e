"""--pretraining edits: a run on edits of the pairs' own photos, whose model the run on the pairs starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cluster.config.fields import Config
from cluster.errors import ConfigError
from cluster.recipes.commandline import Command
from shards.edits.own_photos import write_own_photos
from shards.reading.object_store import is_url
from shards.reading.reader import Folder

RECIPE = "edits"  # of the first run


def starting_from_edits(command: Command) -> Command:
    """The command with --init of the first run, if it asks for one; else as it is."""
    if not command.pretraining:
        return command
    config = command.config
    return dataclasses.replace(command, config=dataclasses.replace(config, init=f"runs/{_name(config)}"))


def first_run(command: Command, root: Path) -> Command:
    """The command of the first run; its photos, those of the training pairs, are written where they are missing.

    It trains as the recipe `edits`, with the options that were given, those of --data.edits too. Raises DataError where
    there are no pairs.
    """
    config, place = command.config, command.config.data.shards
    if not is_url(place) and not (root / place).is_dir():
        made = f"python -m shards.pack SOURCE --root DIR --out {root / place}"
        raise ConfigError(f"--data.shards {root / place}: no such folder; make it with {made}")
    shards = Folder.open(place if is_url(place) else root / place)
    # Other pairs have other photos to hold back, so these belong to the pairs as they are.
    made = f"data/{shards.path.name}-{shards.sha256()[:8]}"
    photos = write_own_photos(shards, root / f"{made}-photos")
    train, val, _ = config.data.edits.pairs
    edits = dataclasses.replace(config.data.edits, photos=str(photos), pairs=(train, val, 0))
    data = dataclasses.replace(config.data, shards=f"{made}-edits", features="", mix={}, source="edits", edits=edits)
    config = dataclasses.replace(config, name=_name(config), init="", data=data)
    return dataclasses.replace(command, config=config, recipe=RECIPE, stage="train", pretraining="")


def _name(config: Config) -> str:
    return f"{config.name}-edits"
