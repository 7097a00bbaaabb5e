"""What Optuna is told: a trial that ASHA stopped is pruned, with its scores by step, and never complete."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tune.commandline import parse, save
from tune.search.algorithm import Pruning, tpe
from tune.search.plan import METRIC
from tune.search.points import points
from tune.search.table import DIVERGED, FINISHED, STOPPED, Table

ROOT = Path(__file__).resolve().parents[3]
SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


def watched() -> tuple[Pruning, optuna.Study]:
    """A search and, by the storage that both have, what it told Optuna."""
    memory = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=memory, study_name="s", direction="maximize")
    search = Pruning(SPACE, metric=METRIC, mode="max", sampler=optuna.samplers.TPESampler(seed=0), storage=memory,
                     study_name="s")  # fmt: skip
    return search, study


def result(step: int, score: float, **more: object) -> dict:
    return {METRIC: score, "step": step, "training_iteration": 1} | more


def test_a_stopped_trial_is_not_among_the_completed_ones() -> None:
    search, study = watched()
    for name in ("stopped", "finished", "diverged", "failed"):
        search.suggest(name)
    search.on_trial_result("finished", result(5, 20.0))
    search.on_trial_complete("stopped", result(5, 10.0))
    search.on_trial_complete("finished", result(10, 30.0, state=FINISHED))
    search.on_trial_complete("diverged", result(5, 0.0, state=DIVERGED))
    search.on_trial_complete("failed", None, error=True)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    completed = study.get_trials(states=(TrialState.COMPLETE,))
    assert [(trial.number, trial.value) for trial in completed] == [(1, 30.0), (2, 0.0)]
    assert [study.trials[number].intermediate_values for number in (0, 1)] == [{5: 10.0}, {5: 20.0}]


def test_the_table_tells_the_same_after_a_kill(tmp_path: Path) -> None:
    sweep = parse(["tiny", "--root", str(tmp_path), "--name", "s", "--trials", "8", "--finetune.select", "CIDEr"])
    save(sweep)
    table = Table(sweep.plan.folder)
    ends = ((STOPPED, {5: 40.0}), (FINISHED, {5: 20.0, 10: 15.0}), (DIVERGED, {}), (STOPPED, {5: 30.0}))
    for (state, scores), values in zip(ends, itertools.islice(points(sweep.plan), 4), strict=True):
        key = sweep.plan.key(values)
        table.start(key, values)
        for step, score in scores.items():
            table.score(key, step, score, score)
        table.end(key, state)
    study = optuna.load_study(study_name="sweep", storage=tpe(sweep.plan, table, 8)._storage)
    told = [
        (trial.state, trial.value, trial.intermediate_values) for trial in study.trials if trial.state.is_finished()
    ]
    assert told == [
        (TrialState.PRUNED, 40.0, {5: 40.0}),
        (TrialState.COMPLETE, 20.0, {5: 20.0, 10: 20.0}),
        (TrialState.COMPLETE, 0.0, {}),
        (TrialState.PRUNED, 30.0, {5: 30.0}),
    ]


# Ray reads how it is to be reached when it is imported, so it gets a process of its own.
QUICK = """
import json, sys
from cluster.launch import ray_train
from cluster.config.fields import ClusterConfig

ray_train.start_ray(ClusterConfig(workers=1))

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from tune.search.algorithm import Pruning
from tune.search.table import FINISHED


class Quick(tune.Trainable):
    def setup(self, config):
        self._x, self._step = config["x"], 0

    def reset_config(self, config):  # eight trials in one process, which takes seconds to start
        self.setup(config)
        return True

    def step(self):
        self._step += 5
        done = self._step == 15
        return {"CIDEr": self._x * self._step, "step": self._step, "done": done} | ({"state": FINISHED} if done else {})

    def save_checkpoint(self, folder):
        return {"step": self._step}


memory = optuna.storages.InMemoryStorage()
study = optuna.create_study(storage=memory, study_name="s", direction="maximize")
search = Pruning({"x": optuna.distributions.FloatDistribution(0.0, 1.0)}, metric="CIDEr", mode="max",
                 sampler=optuna.samplers.TPESampler(seed=0), storage=memory, study_name="s")
asha = ASHAScheduler(time_attr="step", metric="CIDEr", mode="max", grace_period=5, max_t=15, reduction_factor=3)
ended = tune.Tuner(
    tune.with_resources(Quick, {"CPU": 1}),
    tune_config=tune.TuneConfig(search_alg=search, scheduler=asha, num_samples=8, max_concurrent_trials=1,
                                reuse_actors=True),
    run_config=tune.RunConfig(name="t", storage_path=sys.argv[1], verbose=0),
).fit()
told = {one.params["x"]: [one.state.name, one.value, one.intermediate_values] for one in study.trials}
print(json.dumps({"ended": {one.config["x"]: one.metrics["step"] for one in ended}, "told": told}))
"""


@pytest.mark.ray
def test_rays_own_calls_come_to_that(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", QUICK, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True,
                          text=True, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ended, told = found["ended"], found["told"]
    assert len(ended) == 8 and set(ended.values()) >= {5, 15}, "some were stopped and some were not"
    assert {x: "COMPLETE" if step == 15 else "PRUNED" for x, step in ended.items()} == {x: told[x][0] for x in told}
    for x, (state, value, scores) in told.items():
        # Of a trial that ends by itself the last score is its value alone.
        last = ended[x] if state == "PRUNED" else ended[x] - 5
        assert scores == {str(step): pytest.approx(float(x) * step) for step in range(5, last + 1, 5)}
        assert value == pytest.approx(float(x) * ended[x])
