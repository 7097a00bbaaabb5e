"""Which trials a sweep consists of, as far as that is known before any result, and which of them are left to run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from tune.search.dimension import Dimension, Value
from tune.search.plan import GRID, PBT, TPE, Plan
from tune.search.space import recipe_point
from tune.search.table import FAILED, FINAL, RUNNING, Table, Trial

Values = dict[str, Value]
REDUCTION = 3  # ASHA lets the best third of a rung go on


def points(plan: Plan) -> Iterator[Values]:
    """The configurations of a sweep that does not learn from results, in order, without end where they are random."""
    first = recipe_point(plan.config, plan.dimensions)
    if plan.search == GRID:
        names = [one.name for one in plan.dimensions]
        for values in itertools.product(*(one.choices for one in plan.dimensions)):
            yield dict(zip(names, values, strict=True))
        return
    if first is not None:
        yield first
    generator = np.random.default_rng([plan.config.seed, len(plan.dimensions)])
    while True:
        yield {one.name: one.sample(generator) for one in plan.dimensions}


def grid_size(dimensions: Sequence[Dimension]) -> int:
    """The number of points of a grid; ConfigError where a dimension is a range of numbers."""
    for one in dimensions:
        if not one.choices:
            raise ConfigError(f"--search grid: --{one.name} {one} is no choice; write --{one.name} choice:A/B/C")
    return int(np.prod([len(one.choices) for one in dimensions]))


def open_points(plan: Plan, table: Table, target: int) -> list[dict[str, Any]]:
    """What is left to run of a list of points: each with the run folder that it goes on in, where it has begun.

    Of a population the last run of each member that had not ended.
    """
    if plan.search == PBT:
        last: dict[int, Trial] = {}
        for trial in table.trials.values():
            last[trial.member] = trial
        begun = [dict(one.values) | {"run": one.key} for one in last.values() if one.state in (RUNNING, FAILED)]
        fresh = itertools.islice(points(plan), len(last), max(target, len(last)))
        return begun + [values | {"run": None} for values in fresh]
    wanted = itertools.islice(points(plan), target)
    final = {key for key, trial in table.trials.items() if trial.state in FINAL}
    unique = {plan.key(values): values for values in wanted}
    return [values | {"run": None} for key, values in unique.items() if key not in final]


def how_many_left(plan: Plan, table: Table, target: int) -> int:
    """How many trials are left to run."""
    if plan.search != TPE:
        return len(open_points(plan, table, target))
    return max(target - sum(trial.state in FINAL for trial in table.trials.values()), 0)


def rungs(plan: Plan) -> list[int]:
    """The steps at which ASHA decides."""
    finetune, found = plan.config.finetune, []
    step = finetune.validate_every
    while step < finetune.steps:
        found.append(step)
        step *= REDUCTION
    return found
