"""Who chooses the values of trials, and who stops them: Optuna's TPE with ASHA, lists of points, or PBT.

A sweep that goes on begins with a new Tuner (restored ones lose trials: ray#30584, ray#30950). What happened before is
told to the new TPE and ASHA from the table, through their public methods.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher

from tune.search.dimension import Dimension
from tune.search.plan import METRIC, PBT, TPE, Plan
from tune.search.points import REDUCTION, open_points
from tune.search.space import recipe_point
from tune.search.table import DIVERGED, FAILED, FINAL, RUNNING, Table

STARTUP_SHARE = 4  # a quarter of the trials is random before TPE takes over, at most 10, Optuna's own number


def tpe(plan: Plan, table: Table, target: int) -> Searcher:
    """Optuna's TPE, which knows every earlier trial; those that were interrupted come first, then the recipe's own."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    first = [trial.values for trial in table.trials.values() if trial.state in (RUNNING, FAILED)]
    own = recipe_point(plan.config, plan.dimensions)
    if own is not None and plan.key(own) not in table.trials:
        first.append(own)
    sampler = optuna.samplers.TPESampler(
        # Another seed each time, or the random trials at the beginning would be the same again.
        seed=plan.config.seed * 100_003 + len(table.trials),
        n_startup_trials=min(10, max(target // STARTUP_SHARE, 1)),
        constant_liar=True,  # trials at the same time keep away from each other
    )
    space = {one.name: _distribution(one) for one in plan.dimensions}
    search = OptunaSearch(space, metric=METRIC, mode="max", sampler=sampler, points_to_evaluate=first)
    for trial in table.trials.values():
        if trial.state in FINAL:
            search.add_evaluated_point(trial.values, 0.0 if trial.state == DIVERGED else trial.best or 0.0)
    return search


def _distribution(one: Dimension):
    import optuna

    if one.choices:
        return optuna.distributions.CategoricalDistribution(one.choices)
    if one.whole:
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def search_of(plan: Plan, table: Table, target: int) -> Searcher | BasicVariantGenerator:
    """Who chooses values."""
    if plan.search == TPE:
        return tpe(plan, table, target)
    return BasicVariantGenerator(points_to_evaluate=open_points(plan, table, target))


def scheduler_of(plan: Plan, table: Table, slots: int) -> TrialScheduler:
    """Who stops trials: ASHA, which knows the scores of earlier trials, or PBT with room for `slots` at once."""
    finetune = plan.config.finetune
    if plan.search == PBT:
        return population(plan, slots)
    asha = ASHAScheduler(
        time_attr="step", metric=METRIC, mode="max", grace_period=finetune.validate_every, max_t=finetune.steps,
        reduction_factor=REDUCTION,
    )  # fmt: skip
    for trial in table.trials.values():
        if trial.state not in FINAL:
            continue  # it will say so itself
        known, best = SimpleNamespace(trial_id=f"earlier {trial.key}"), 0.0
        asha.on_trial_add(None, known)
        for step, score in sorted(trial.scores.items()):
            best = max(best, score)
            asha.on_trial_result(None, known, {"step": step, METRIC: best})
        asha.on_trial_remove(None, known)
    return asha


class Population(PopulationBasedTraining):
    """Ray's, which pauses a trial whenever another one waits. A pause ends a run, so none is made without need."""

    def __init__(self, slots: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._slots = slots

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """What becomes of a trial after a validation."""
        decision = super().on_trial_result(tune_controller, trial, result)
        room = sum(not one.is_finished() for one in tune_controller.get_trials()) <= self._slots
        return TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE and room else decision


def population(plan: Plan, slots: int) -> Population:
    """PBT: at every validation the worst quarter takes over checkpoints of the best, with other weights and so on."""
    by_name = {one.name: one for one in plan.dimensions}
    random.seed(plan.config.seed)  # Ray's PBT draws from here

    def inside(config: dict[str, Any]) -> dict[str, Any]:
        return config | {name: one.clamp(config[name]) for name, one in by_name.items()} | {"run": None}

    return Population(
        slots, time_attr="step", metric=METRIC, mode="max", perturbation_interval=plan.config.finetune.validate_every,
        hyperparam_mutations={name: _mutation(one) for name, one in by_name.items()}, custom_explore_fn=inside,
        log_config=False,
    )  # fmt: skip


def _mutation(one: Dimension) -> Any:
    if one.choices:
        return list(one.choices)
    if one.whole:
        return tune.randint(int(one.low), int(one.high) + 1)
    return tune.loguniform(one.low, one.high) if one.log else tune.uniform(one.low, one.high)
