"""python -m cluster.plan [RECIPE] [--dotted.option value]... --nodes N --gpus-per-node M: memory and time of a run.

Memory of a worker is counted for the largest batches that the recipe can give. Time is measured, by a few steps here if
this machine is of the planned kind, or follows from --samples-per-second. What is neither is said to be unknown.

  --nodes N                machines [1]
  --gpus-per-node M        GPUs of each; 0: workers on CPUs
  --samples-per-second X   of all workers together, as metrics.jsonl of a run on such machines has it
  --calibrate SECONDS      longest measurement of a stage; 0: none [120]
  --vocabulary V           words of the tokenizer, where the data are not packed yet
  --classes C              classes, likewise
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster import CODE
from cluster.config.fields import Config
from cluster.errors import ConfigError
from cluster.recipes.commandline import USAGE, parse, read_words
from shards.errors import run_main


class Asked(NamedTuple):
    """The options that are the plan's own."""

    nodes: int = 1
    gpus_per_node: int | None = None
    samples_per_second: float | None = None
    calibrate: float = 120.0
    vocabulary: int | None = None
    classes: int | None = None


def main(arguments: Sequence[str]) -> int:
    """Prints the plan; exit code 0, 2 (by run_main) for the user's mistakes."""
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return 0
    asked, rest = split(arguments)
    command = parse(rest)
    from cluster.launch.run_folder import find_root
    from cluster.planning.sizes import with_planned_sizes
    from cluster.planning.table import show
    from cluster.recipes.sizes import with_sizes_of

    root = find_root(command.config.root, CODE)
    config = with_sizes_of(command.config, command.recipe, command.given, root)
    config = with_planned_sizes(config, root, asked.vocabulary, asked.classes)
    placement = placed(config, asked)
    print(show(config, command.training_stages, placement, asked.nodes, asked.samples_per_second, asked.calibrate))
    return 0


def split(arguments: Sequence[str]) -> tuple[Asked, list[str]]:
    """The plan's own options, and the arguments of cluster/train.py. ConfigError for values that are no numbers."""
    words = read_words(arguments, USAGE.replace("cluster/train.py", "-m cluster.plan", 1))
    own: dict[str, Any] = {}  # whole numbers and others, by field
    rest = [words.recipe] if words.recipe else []
    for name, value in words.options:
        field = name.replace("-", "_")
        if field not in Asked._fields:
            rest.append(f"--{name}={value}")
            continue
        number = float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else math.nan
        whole = field not in ("samples_per_second", "calibrate")
        least = 0 if field in ("gpus_per_node", "calibrate", "classes") else 1 if whole else 1e-9
        if not number >= least or (whole and not number.is_integer()):
            raise ConfigError(f"--{name} {value!r} must be a {'whole ' * whole}number, {least:g} or more")
        own[field] = int(number) if whole else number
    asked = Asked(**own)
    if asked.gpus_per_node is None:
        raise ConfigError("--gpus-per-node is missing: give the GPUs of a machine, 0 where workers train on CPUs")
    return asked, rest


def placed(config: Config, asked: Asked):
    """The workers of the plan. ConfigError where the machines have fewer GPUs than they want."""
    from cluster.distributed.devices import place, require_room

    gpus = {"GPU": float(asked.gpus_per_node)} if asked.gpus_per_node else {}
    machines = [{"Alive": True, "Resources": gpus | {"CPU": 1e9}} for _ in range(asked.nodes)]
    cluster = config.cluster
    if not gpus and not cluster.workers and asked.nodes > 1:
        cluster = dataclasses.replace(cluster, workers=asked.nodes)  # one a node, as the Slurm scripts have it
    placement = place(cluster, machines)
    require_room(placement, machines)
    return placement


if __name__ == "__main__":
    run_main(main)
