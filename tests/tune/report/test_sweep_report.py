"""The report of a sweep from its table: what is best, what matters, and commands that mean what they say."""

from __future__ import annotations

import csv
import itertools
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from cluster.config.options import differences
from cluster.recipes.commandline import parse as parse_run
from cluster.recipes.commandline import read_config
from tune.commandline import Sweep, command_of, parse, save
from tune.report.importance import FEWEST, importances
from tune.report.report import write_report
from tune.report.results import ranked, times, useful_seconds
from tune.search.points import points
from tune.search.table import DIVERGED, FAILED, FINISHED, STOPPED, Table

pytestmark = pytest.mark.slow

OPTIONS = ["--finetune.steps", "20", "--pretrain.weights.classify", "0.5", "--log.wandb", "disabled"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Table]:
    """The report of 24 trials whose score is made of the temperature of MVCL alone: the closer to 0.2, the better."""
    root = tmp_path_factory.mktemp("swept")
    sweep = parse(["tiny", "--root", str(root), "--name", "s", "--search", "random", "--trials", "24", *OPTIONS])
    save(sweep)
    table = Table(sweep.plan.folder)
    table.session(2)
    for number, values in enumerate(itertools.islice(points(sweep.plan), 24)):
        key = sweep.plan.key(values)
        table.start(key, values)
        if number == 5:
            table.score(key, 5, 99.0, 99.0)
            table.end(key, DIVERGED, "finetune step 7, task finetune: the loss caption is not finite")
            continue
        if number == 6:
            table.end(key, FAILED, "exit code 1: <nothing> (output: x)")
            continue
        score = 50 - 8 * abs(math.log(values["pretrain.mvcl_temperature"] / 0.2))
        table.score(key, 5, score - 10, score - 10)
        if number % 2:
            table.end(key, STOPPED)
        else:
            table.score(key, 20, score, score)
            table.end(key, FINISHED)
    table.close()
    write_report(sweep, table)
    return sweep, table


def test_the_report_shows_the_best_first_and_every_dimension(swept: tuple[Sweep, Table]) -> None:
    sweep, table = swept
    best = ranked(table)[0]
    html = (sweep.plan.folder / "report.html").read_text()
    assert best.score == max(t.score for t in table.trials.values() if t.state == FINISHED)
    for one in sweep.plan.dimensions:
        assert html.count(one.name) >= 5  # table, importance, slice, parallel axis, space
    assert "rung 5" in html and "rung 15" in html and "not finite" in html and "&lt;nothing&gt;" in html
    assert html.count('class="chart"') == len(sweep.plan.dimensions)
    assert not re.search(r"(src|href)=|https?://|@import", html), "it needs no network"
    assert "nan" not in html.lower().replace("finance", "")


def test_the_winners_command_and_recipe_are_the_same_run(swept: tuple[Sweep, Table]) -> None:
    sweep, table = swept
    best = ranked(table)[0]
    words = command_of(sweep, best.values)
    typed = parse_run(shlex.split(shlex.join(words))[2:]).config
    recipe = read_config(sweep.plan.folder / "best.yaml")
    assert words[:2] == ["python", "cluster/train.py"] and differences(typed, recipe) == []
    assert recipe.name == "s-best" and recipe.cluster.workers == 1 and recipe.finetune.steps == 20
    assert recipe.pretraining["pretrain"].mvcl_temperature == best.values["pretrain.mvcl_temperature"]
    assert sweep.plan.key(best.values) == best.key
    assert parse_run([str(sweep.plan.folder / "best.yaml")]).evaluates


def test_results_csv_has_all_trials_the_best_first(swept: tuple[Sweep, Table]) -> None:
    sweep, table = swept
    rows = list(csv.DictReader((sweep.plan.folder / "results.csv").open()))
    assert len(rows) == 24 and rows[0]["key"] == ranked(table)[0].key
    assert {row["state"] for row in rows[:22]} == {FINISHED, STOPPED} and rows[22]["reason"].startswith(
        "finetune step 7"
    )
    assert float(rows[0]["CIDEr@20"]) == float(rows[0]["CIDEr"]) and rows[0]["attempts"] == "1"
    assert float(rows[0]["pretrain.fda_temperature"]) == ranked(table)[0].values["pretrain.fda_temperature"]


def test_the_dimension_that_matters_is_found(swept: tuple[Sweep, Table]) -> None:
    sweep, table = swept
    trials = ranked(table)
    found = importances(sweep.plan.dimensions, trials, [trial.scores[5] for trial in trials])
    assert max(found.shares, key=found.shares.get) == "pretrain.mvcl_temperature"
    assert math.isclose(sum(found.shares.values()), 1) and found.explained < 1
    noise = np.random.default_rng(0).normal(size=len(trials))
    assert importances(sweep.plan.dimensions, trials, list(noise)).explained < 0.2
    assert importances(sweep.plan.dimensions, trials[: FEWEST - 1], [1.0] * (FEWEST - 1)) is None
    assert importances(sweep.plan.dimensions, trials, [1.0] * len(trials)) is None


def test_each_figure_says_of_how_many_trials_it_is(swept: tuple[Sweep, Table]) -> None:
    sweep, table = swept
    html = (sweep.plan.folder / "report.html").read_text()
    states = [trial.state for trial in table.trials.values()]
    finished, stopped = states.count(FINISHED), states.count(STOPPED)
    assert (finished, stopped) == (11, 11)
    assert html.count(f"{finished} finished trials, drawn solid, and {stopped} after fewer steps") == 3
    # Twenty trials are too few to find the one of 18 dimensions that matters.
    assert f"Not said of these {finished + stopped} trials" in html and 'class="bars"' not in html
    charts = html.count('class="chart"') + 2  # slices, curves, parallel coordinates
    assert len(re.findall(r'class="trial unfinished"', html)) == stopped * charts
    assert len(re.findall(r'class="trial winner"', html)) == charts


FEW_DIMENSIONS = ["--pretrain.steps", "0", "--finetune.negatives.count", "2", "--finetune.negatives.kinds", "retrieve",
                  "--finetune.weights.fda", "0.5", "--finetune.fda_temperature", "0.1"]  # fmt: skip


@pytest.mark.parametrize("matters", [True, False])
def test_an_importance_is_drawn_if_it_means_something(tmp_path: Path, matters: bool) -> None:
    words = ["--root", str(tmp_path), "--name", "s", "--search", "random", "--trials", "30", *FEW_DIMENSIONS]
    sweep = parse(["tiny", *words])
    assert {one.name for one in sweep.plan.dimensions} == {"finetune.weights.changed", "finetune.lr"}
    save(sweep)
    table = Table(sweep.plan.folder)
    for number, values in enumerate(itertools.islice(points(sweep.plan), 30)):
        key = sweep.plan.key(values)
        score = float(60 + 10 * math.log(values["finetune.lr"] / 0.001) if matters else 50 + number % 2)
        table.start(key, values)
        table.score(key, 5, score, score)
        if number % 3 == 0:
            table.score(key, 10, score, score)
        table.end(key, STOPPED if number % 3 else FINISHED)
    write_report(sweep, table)
    html = (sweep.plan.folder / "report.html").read_text()
    assert ('class="bars"' in html) == matters
    said = "over 30 trials, 10 of which finished" if matters else "Not said of these 30 trials: a random forest"
    assert said in html


def test_a_sweep_without_a_score_is_reported_too(tmp_path: Path) -> None:
    sweep = parse(["tiny", "--root", str(tmp_path), "--name", "s", "--trials", "1"])
    save(sweep)
    table = Table(sweep.plan.folder)
    values = next(points(sweep.plan))
    table.start(sweep.plan.key(values), values)
    table.end(sweep.plan.key(values), FAILED, "no memory")
    assert write_report(sweep, table) is None
    assert "no memory" in (sweep.plan.folder / "report.html").read_text()
    assert not (sweep.plan.folder / "best.yaml").exists()


def test_useful_time_is_of_steps_and_validations(tmp_path: Path) -> None:
    lines = [
        '{"stage": "pretrain", "step": 1, "steps_per_s": 0.5}',
        '{"stage": "pretrain", "step": 10, "steps_per_s": 3.0}',
        '{"stage": "finetune", "step": 4, "bad_sample": {"key": "x"}}',
        '{"stage": "finetune", "step": 5, "steps_per_s": 1.0}',
        '{"stage": "finetune", "step": 5, "validation": {"CIDEr": 1}, "seconds": 6.0}',
        '{"stage": "finetune", "step": 6, "steps_per_s": 0.125}',  # the validation before it is in its 8 seconds
        '{"stage": "finetune", "step": 6, "validation": {"CIDEr": 1}, "seconds": 7.0}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert useful_seconds(tmp_path) == pytest.approx(2 + 3 + 1 + 8 + 7)
    assert useful_seconds(tmp_path / "nothing") == 0
    sweep = parse(["tiny", "--root", str(tmp_path), "--name", "s", "--trials", "1"])
    save(sweep)
    assert times(sweep.plan, Table(sweep.plan.folder)).useful_share is None
