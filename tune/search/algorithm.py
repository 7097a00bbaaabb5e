"""Who chooses the values of trials, and who stops them: Optuna's TPE with ASHA, lists of points, or PBT.

A sweep that goes on begins with a new Tuner (restored ones lose trials: ray#30584, ray#30950). What happened before is
told to the new TPE and ASHA from the table, through their public methods.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher
from ray.tune.search.optuna import OptunaSearch

from tune.search.dimension import Dimension
from tune.search.plan import METRIC, PBT, TPE, Plan
from tune.search.points import REDUCTION, open_points
from tune.search.space import recipe_point
from tune.search.table import DIVERGED, FAILED, FINAL, FINISHED, RUNNING, Table, Trial

# What Optuna takes for complete. A diverged trial is, with CIDEr 0, the lowest there is: TPE should keep away.
TOLD_COMPLETE = (FINISHED, DIVERGED)
STUDY = "sweep"  # Optuna's name of what it knows, in memory
STARTUP_SHARE = 4  # a quarter of the trials is random before TPE takes over, at most 10, Optuna's own number


def tpe(plan: Plan, table: Table, target: int) -> Searcher:
    """Optuna's TPE, which knows every earlier trial; those that were interrupted come first, then the recipe's own."""
    import optuna

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
    memory = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=memory, study_name=STUDY, direction="maximize")
    for trial in table.trials.values():
        if (known := _known(trial, space)) is not None:
            study.add_trial(known)
    return Pruning(space, metric=METRIC, mode="max", sampler=sampler, points_to_evaluate=first, storage=memory,
                   study_name=STUDY)  # fmt: skip


class Pruning(OptunaSearch):
    """Ray's, which tells Optuna of every trial that it is complete. A trial that ASHA stopped is pruned.

    TPE ranks pruned trials below all complete ones, by the step that they reached and their score there. So scores are
    told by the step of the training, not by Ray's count of results.
    """

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """A validation of a trial that goes on."""
        super().on_trial_result(trial_id, result | {TRAINING_ITERATION: result["step"]})

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """The end of a trial: complete, pruned, or failed (`error`)."""
        if result and result.get("state") not in TOLD_COMPLETE:
            self.on_trial_result(trial_id, result)  # Ray leaves out the score at which a trial is stopped
            result = None
        super().on_trial_complete(trial_id, result, error)


def _known(trial: Trial, space: dict[str, Any]) -> Any:
    """A trial of an earlier command as Optuna has it; None if it says nothing, or is to go on."""
    import optuna

    if trial.state not in FINAL or (trial.score is None and trial.state != DIVERGED):
        return None
    complete = trial.state in TOLD_COMPLETE
    value = 0.0 if trial.state == DIVERGED else trial.score
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED, value=value,
        params=trial.values, distributions=space, intermediate_values=_so_far(trial),
    )  # fmt: skip


def _so_far(trial: Trial) -> dict[int, float]:
    """Step -> CIDEr of the checkpoint that was kept then: what a running trial tells."""
    kept = {step: trial.kept_at(step) for step in sorted(trial.scores)}
    return {step: trial.scores[one] for step, one in kept.items() if one is not None}


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
    nobody: Any = None  # in the place of Tune's controller, of which ASHA asks nothing
    for trial in table.trials.values():
        if trial.state not in FINAL:
            continue  # it will say so itself
        known: Any = SimpleNamespace(trial_id=f"earlier {trial.key}")  # all that ASHA asks of a trial
        asha.on_trial_add(nobody, known)
        for step, score in _so_far(trial).items():
            asha.on_trial_result(nobody, known, {"step": step, METRIC: score})
        asha.on_trial_remove(nobody, known)
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
