"""What a trial is worth, and the best few again with further seeds: no lucky validation and no lucky seed wins."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.recipes.commandline import read_config
from cluster.training import checkpoint
from cluster.training.checkpoint import COMMIT, Commit
from tune.commandline import command_of, parse, save
from tune.report.report import write_report
from tune.search.plan import shared_stages
from tune.search.points import points
from tune.search.repeats import Repeated, finished, repeated, repeats_left, winner
from tune.search.table import DIVERGED, FAILED, FINISHED, STOPPED, Table, Trial

# What the trials of the search score at their last validation, and with seed 1 and seed 2.
SEARCH = (20.0, 50.0, 30.0, 40.0)
AGAIN = {50.0: (22.0, 24.0), 40.0: (36.0, 38.0), 30.0: (31.0, 35.0)}


def begin(tmp_path: Path, *options: str):
    sweep = parse(["tiny", "--root", str(tmp_path), "--name", "s", "--search", "random", "--trials", "4", *options])
    save(sweep)
    return sweep, Table(sweep.plan.folder)


def search(sweep, table: Table) -> None:
    """Four finished trials and one that was stopped with the highest score of all."""
    for number, values in enumerate(itertools.islice(points(sweep.plan), 5)):
        key = sweep.plan.key(values)
        table.start(key, values)
        table.score(key, 5, 60.0, None)
        if number < 4:
            table.score(key, 10, SEARCH[number], None)
        table.end(key, FINISHED if number < 4 else STOPPED)


def again(sweep, table: Table, seed: int, trial: Trial, score: float | None, state: str | None = FINISHED) -> None:
    key = sweep.plan.of_seed(seed).key(trial.values)
    table.start_again(key, trial, seed)
    if score is not None:
        table.score(key, 10, score, None)
    if state:
        table.end(key, state, "why" if state == FAILED else "")


def all_again(sweep, table: Table) -> None:
    for trial in [one.trial for one in repeated(sweep, table)]:
        for seed, score in enumerate(AGAIN[trial.score], 1):
            again(sweep, table, seed, trial, score)


VALIDATIONS = {
    5: {"CIDEr": 80.0, "balanced": 50.0},
    10: {"CIDEr": 20.0, "balanced": 90.0},
    15: {"CIDEr": 70.0, "balanced": None},
    20: {"CIDEr": 60.0, "balanced": 90.0},
}


@pytest.mark.parametrize(("select", "kept"), [("last", 20), ("CIDEr", 5), ("balanced", 10), ("object", 20)])
def test_a_trial_is_worth_what_the_checkpoint_that_its_run_keeps_scored(tmp_path: Path, select: str, kept: int) -> None:
    table = Table(tmp_path)
    table.start("a", {"lr": 0.1})
    for step, scores in VALIDATIONS.items():
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / COMMIT).write_text(json.dumps(asdict(Commit("finetune", step, 1, 0, scores))))
        table.score("a", step, scores["CIDEr"], scores.get(select))
        best = checkpoint.best(tmp_path / "checkpoints", select).commit
        for trial in (table.trials["a"], Table(tmp_path).trials["a"]):
            assert (trial.kept, trial.score) == (best.step, best.validation["CIDEr"])
    trial = table.trials["a"]
    assert trial.kept == kept
    assert trial.kept_at(10) == {"last": 10, "CIDEr": 5, "balanced": 10, "object": 10}[select]


def test_lines_of_an_earlier_version_are_judged_as_they_were(tmp_path: Path) -> None:
    lines = [
        '{"time": 1.0, "event": "start", "trial": "a", "values": {"lr": 0.1}}',
        '{"time": 2.0, "event": "score", "trial": "a", "step": 5, "CIDEr": 9.0}',
        '{"time": 3.0, "event": "score", "trial": "a", "step": 10, "CIDEr": 8.0}',
    ]
    (tmp_path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    assert (Table(tmp_path).trials["a"].kept, Table(tmp_path).trials["a"].score) == (5, 9.0)


def test_a_lucky_validation_and_a_stopped_trial_do_not_win(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--repeats", "0", "--finetune.select", "last")
    search(sweep, table)
    assert [trial.score for trial in finished(table)] == [50.0, 40.0, 30.0, 20.0]
    best = winner(sweep, table)
    assert best.trial.score == 50.0 and best.mean is None and best.reason == "no further seeds were asked for"
    assert repeats_left(sweep, table) == [] and repeated(sweep, table) == []


def test_the_best_mean_over_further_seeds_wins(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path)
    assert (sweep.top, sweep.repeats, sweep.further_seeds) == (3, 2, (1, 2))
    search(sweep, table)
    assert [one.trial.score for one in repeated(sweep, table)] == [50.0, 40.0, 30.0]
    all_again(sweep, table)
    for read in (table, Table(sweep.plan.folder)):
        best = winner(sweep, read)
        assert best.trial.score == 40.0 and best.mean == 37.0, "not the one with the highest score of the search"
        assert best.spread == pytest.approx(statistics.stdev([36.0, 38.0])) and best.scores == {1: 36.0, 2: 38.0}
        assert len(read.trials) == 5, "repeats are no trials of the search"
        assert repeats_left(sweep, read) == []


def test_a_killed_sweep_goes_on_with_the_further_seeds_that_are_left(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path)
    search(sweep, table)
    first, second, third = (one.trial for one in repeated(sweep, table))
    left = repeats_left(sweep, table)
    assert [(one["of"], one["repeat"]) for one in left] == [
        (first.key, 1), (second.key, 1), (third.key, 1), (first.key, 2), (second.key, 2), (third.key, 2)
    ]  # fmt: skip
    again(sweep, table, 1, first, 22.0)
    again(sweep, table, 1, second, None, None)
    again(sweep, table, 1, third, None, FAILED)
    read = Table(sweep.plan.folder)
    left = repeats_left(sweep, read)
    assert [(one["of"], one["repeat"]) for one in left] == [
        (second.key, 1), (third.key, 1), (first.key, 2), (second.key, 2), (third.key, 2)
    ]  # fmt: skip
    assert all(repeats == dict(first.values) | repeats for repeats in left[2:3])
    assert repeated(sweep, read)[0].reason == "seed 2: not begun"
    assert repeated(sweep, read)[2].reason == "seed 1: failed, seed 2: not begun"
    assert winner(sweep, read).trial.key == first.key, "until there is a mean"


def test_what_diverges_under_a_further_seed_has_no_mean_and_does_not_win(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--top", "2")
    search(sweep, table)
    first, second = (one.trial for one in repeated(sweep, table))
    again(sweep, table, 1, first, 70.0)
    again(sweep, table, 2, first, 5.0, DIVERGED)
    again(sweep, table, 1, second, None, FAILED)
    one = repeated(sweep, table)[0]
    assert (one.mean, one.spread, one.reason) == (None, None, "seed 2: diverged")
    assert winner(sweep, table).trial.key == second.key
    assert [(left["of"], left["repeat"]) for left in repeats_left(sweep, table)] == [(second.key, 1), (second.key, 2)]


def test_one_further_seed_has_a_mean_and_no_spread(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path, "--repeats", "1")
    search(sweep, table)
    again(sweep, table, 1, finished(table)[0], 22.0)
    one = repeated(sweep, table)[0]
    assert (one.mean, one.spread) == (22.0, None)


def test_members_that_end_with_the_same_values_are_repeated_once(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path)
    values = next(points(sweep.plan))
    for key, score in (("a", 10.0), ("b", 12.0)):
        table.start(key, values)
        table.score(key, 10, score, None)
        table.end(key, FINISHED)
    assert [one.trial.key for one in repeated(sweep, table)] == ["b"]


def test_a_repeat_is_the_trial_with_another_seed(tmp_path: Path) -> None:
    sweep = begin(tmp_path, "--finetune.lr", "log:0.001..0.01")[0]
    values = next(points(sweep.plan))
    other = sweep.plan.of_seed(2)
    key = other.key(values)
    run, own = other.run_config(key, values), sweep.plan.run_config(sweep.plan.key(values), values)
    assert key != sweep.plan.key(values) and (run.seed, own.seed) == (2, 0)
    assert run.finetune == own.finetune and other.folder == sweep.plan.folder
    fine = parse(["tiny", "--search", "grid", "--finetune.lr", "choice:0.1/0.2", "--root", str(tmp_path)]).plan
    assert shared_stages(fine.config, fine.dimensions) == ("pretrain",)
    first, second = (fine.of_seed(1).config_of(one) for one in points(fine))
    assert fine.of_seed(1).pretraining_key(first) == fine.of_seed(1).pretraining_key(second)
    assert fine.of_seed(1).pretraining_key(first) != fine.pretraining_key(fine.config_of(next(points(fine))))


def test_report_and_recipe_say_mean_spread_and_number_of_seeds(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path)
    search(sweep, table)
    all_again(sweep, table)
    best = write_report(sweep, table).trial
    html = (sweep.plan.folder / "report.html").read_text()
    recipe = (sweep.plan.folder / "best.yaml").read_text()
    said = (
        "mean CIDEr on validation 37.0, standard deviation 1.4, over 2 further seeds (1: 36.0, 2: 38.0); "
        "CIDEr 40.0 in the search (step 10, the last of 2 validations)"
    )
    assert said in html and said in recipe.splitlines()[1]
    assert "37.0<small> ± 1.4</small>" in html and "over 2 further seeds" in html
    config = read_config(sweep.plan.folder / "best.yaml")
    assert config.seed == 0 and sweep.plan.key(best.values) == best.key
    assert config.finetune.lr == best.values["finetune.lr"]
    rows = list(csv.DictReader((sweep.plan.folder / "results.csv").open()))
    assert rows[0]["key"] == best.key and rows[0]["CIDEr"] == "40.0" and rows[0]["kept_step"] == "10"
    assert (rows[0]["mean"], rows[0]["seeds_of_mean"]) == ("37.0", "2")
    assert float(rows[0]["standard_deviation"]) == pytest.approx(2**0.5)
    assert [row["state"] for row in rows[:5]] == [FINISHED] * 4 + [STOPPED], "the stopped one is last, though it has 60"
    assert len(rows) == 11 and {row["further_seed"] for row in rows[5:]} == {"1", "2"}
    assert "4 finished trials, drawn solid, and 1 after fewer steps" in html


def test_a_null_of_the_report_says_why(tmp_path: Path) -> None:
    sweep, table = begin(tmp_path)
    search(sweep, table)
    again(sweep, table, 1, finished(table)[0], 22.0)
    again(sweep, table, 2, finished(table)[0], None, FAILED)
    write_report(sweep, table)
    html = (sweep.plan.folder / "report.html").read_text()
    assert 'title="seed 2: failed"' in html and "seed 2: failed)" in html.split("<h2>")[1]
    assert "Not said of 5 trials: 8 are the fewest." in html and 'class="bars"' not in html


@pytest.mark.slow
def test_the_seeds_of_a_sweep(tmp_path: Path) -> None:
    def asked(*words: str):
        return parse(["tiny", "--root", str(tmp_path), "--name", "s", *words])

    assert asked("--repeats", "0").repeats == 0 and asked("--top", "1").top == 1
    assert asked("--seed", "7").further_seeds == (8, 9)
    for words, said in (
        (("--repeats", "0,1"), "--repeats '0,1' must be a whole number"),
        (("--top", "0"), "--top '0' must be a whole number above 0"),
        (("--search", "grid", "--seed", "choice:0/1", "--repeats", "2"), "the sweep varies --seed itself"),
        (("--search", "pbt", "--finetune.select", "CIDEr"), "PBT goes by the last checkpoint"),
    ):
        with pytest.raises(ConfigError, match="--") as error:
            asked(*words)
        assert said in str(error.value)
    assert asked("--search", "grid", "--seed", "choice:0/1").repeats == 0, "the seeds are the trials"
    save(asked("--repeats", "4", "--top", "2"))
    assert (asked().repeats, asked("--resume").top, asked("--resume", "--repeats", "6").repeats) == (4, 2, 6)


def test_a_population_is_judged_by_what_it_hands_on(tmp_path: Path) -> None:
    sweep = parse(["tiny", "--root", str(tmp_path), "--search", "pbt"])
    assert sweep.plan.config.finetune.select == "last"
    words = command_of(sweep, next(points(sweep.plan)))
    assert words[words.index("--finetune.select") + 1] == "last"


def test_means_are_of_the_seeds_that_were_asked_for() -> None:
    def run(seed: int, score: float) -> Trial:
        return Trial(f"k{seed}", 1, {}, 1, scores={5: score}, chosen_by={5: None}, state=FINISHED, seed=seed)

    one = Repeated(run(0, 50.0), (1, 2), {seed: run(seed, 10.0 * seed) for seed in (1, 2, 3)})
    assert (one.mean, one.scores) == (15.0, {1: 10.0, 2: 20.0})
