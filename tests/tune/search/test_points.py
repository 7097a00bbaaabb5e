"""Which trials are left: what is done is never done again, what was interrupted goes on, additions are new."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from tune.commandline import parse, save
from tune.search.algorithm import population, scheduler_of, tpe
from tune.search.plan import METRIC
from tune.search.points import how_many_left, open_points, points, rungs
from tune.search.table import DIVERGED, FAILED, FINISHED, REPLACED, STOPPED, Table


def begin(tmp_path: Path, *options: str):
    sweep = parse(["tiny", "--root", str(tmp_path), "--name", "s", *options])
    save(sweep)
    return sweep, Table(sweep.plan.folder)


def first(plan, count: int) -> list[dict]:
    return list(itertools.islice(points(plan), count))


def test_random_points_are_the_same_each_time_and_more_only_append(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--search", "random", "--trials", "4")
    assert first(sweep.plan, 4) == first(sweep.plan, 9)[:4]
    assert len({sweep.plan.key(values) for values in first(sweep.plan, 9)}) == 9
    other = parse(["tiny", "--root", str(tmp_path), "--name", "t", "--search", "random", "--seed", "1"]).plan
    assert first(other, 2)[0] == first(sweep.plan, 2)[0], "the recipe's own values come first"
    assert first(other, 2)[1] != first(sweep.plan, 2)[1]


def test_a_grid_is_all_combinations_of_what_is_given(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--search", "grid", "--finetune.lr", "choice:0.1/0.2/0.3", "--seed", "choice:0/1")
    assert sweep.target == 6 and len(open_points(sweep.plan, table, 6)) == 6
    assert {one.name for one in sweep.plan.dimensions} == {"finetune.lr", "seed"}


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_what_is_over_is_not_run_again_and_what_failed_is(tmp_path: Path, search: str) -> None:
    sweep, table = begin(tmp_path, "--search", search, "--trials", "6")
    plan = sweep.plan
    keys = [plan.key(values) for values in first(plan, 6)]
    for key, values, state in zip(keys, first(plan, 5), [FINISHED, STOPPED, DIVERGED, FAILED, None], strict=False):
        table.start(key, values)
        if state:
            table.end(key, state)
    assert how_many_left(plan, table, 6) == 3
    if search == "random":
        assert [plan.key(values) for values in open_points(plan, table, 6)] == keys[3:]
    for key in keys[3:]:
        table.start(key, first(plan, 6)[keys.index(key)])
        table.end(key, FINISHED)
    assert how_many_left(plan, table, 6) == 0 and how_many_left(plan, table, 8) == 2


def test_tpe_knows_what_was_and_begins_with_what_was_interrupted(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--trials", "8")
    plan = sweep.plan
    for number, values in enumerate(first(plan, 6)):
        key = plan.key(values)
        table.start(key, values)
        if number < 4:
            table.score(key, 5, 10.0 + number, 10.0 + number)
            table.end(key, DIVERGED if number == 1 else FINISHED)
    search = tpe(plan, table, 8)
    known = [trial.value for trial in search._ot_study.get_trials()]
    assert [value for value in known if value is not None] == [10.0, 0.0, 12.0, 13.0]
    suggested = [search.suggest(f"trial{number}") for number in range(3)]
    assert suggested[:2] == first(plan, 6)[4:] and suggested[2] not in first(plan, 6)
    fresh = tpe(plan, Table(tmp_path), 8)
    assert fresh.suggest("x") == first(plan, 1)[0], "the recipe's own values come first"


def test_asha_knows_the_scores_of_earlier_trials(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--trials", "8", "--finetune.steps", "50")
    plan = sweep.plan
    assert rungs(plan) == [5, 15, 45]
    for values, score in zip(first(plan, 3), (20.0, 30.0, 40.0), strict=True):
        key = plan.key(values)
        table.start(key, values)
        table.score(key, 5, score, score)
        table.end(key, STOPPED)
    asha = scheduler_of(plan, table, 2)
    decisions = []
    for number, score in enumerate((10.0, 50.0)):
        trial = SimpleNamespace(trial_id=f"new{number}")
        asha.on_trial_add(None, trial)
        decisions.append(asha.on_trial_result(None, trial, {"step": 5, METRIC: score}))
    assert decisions == ["STOP", "CONTINUE"]
    empty = scheduler_of(plan, Table(tmp_path), 2)
    empty.on_trial_add(None, SimpleNamespace(trial_id="alone"))
    assert empty.on_trial_result(None, SimpleNamespace(trial_id="alone"), {"step": 5, METRIC: 10.0}) == "CONTINUE"


def test_a_population_goes_on_with_the_last_run_of_each_member(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--search", "pbt", "--trials", "4")
    plan = sweep.plan
    members = first(plan, 4)
    table.start("a", members[0], member=1)
    table.end("a", REPLACED)
    table.start("a2", members[0] | {"finetune.lr": 0.0011}, member=1, donor={"run": "b", "step": 5, "trial": "x"})
    table.start("b", members[1], member=2)
    table.start("c", members[2], member=3)
    table.end("c", FINISHED)
    left = open_points(plan, table, 4)
    assert [one["run"] for one in left] == ["a2", "b", None]
    assert left[0]["finetune.lr"] == 0.0011 and left[2] == members[3] | {"run": None}


def test_pbt_changes_values_and_keeps_them_inside(tmp_path: Path) -> None:
    sweep, _ = begin(tmp_path, "--search", "pbt")
    plan = sweep.plan
    pbt = population(plan, 2)
    config = first(plan, 1)[0] | {"run": "somewhere", "finetune.fda_temperature": 2.0}
    changed = set()
    for _ in range(50):
        new, _ = pbt._get_new_config(SimpleNamespace(config=config), SimpleNamespace(config=config))
        assert new["run"] is None and all(one.has(new[one.name]) for one in plan.dimensions)
        plan.config_of(new)
        changed |= {name for name in new if new[name] != config[name]}
    assert {"finetune.weights.changed", "finetune.weights.fda", "finetune.fda_temperature", "finetune.lr"} <= changed
