"""Keys and configurations of trials: equal exactly where what is learned is; pre-training shared where it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.options import to_yaml
from cluster.recipes.commandline import read_config
from tune.commandline import parse
from tune.search.plan import Donor, Plan, has_finished, shared_stages
from tune.search.points import points
from tune.search.space import recipe_point


def plan(tmp_path: Path, recipe: str, *options: str) -> Plan:
    return parse([recipe, "--root", str(tmp_path), "--name", "s", *options]).plan


def own(made: Plan) -> dict:
    return recipe_point(made.config, made.dimensions)


def test_a_key_is_of_what_is_learned_and_nothing_else(tmp_path: Path) -> None:
    made = plan(tmp_path, "tiny")
    values = own(made)
    key = made.key(values)
    assert key == made.key(dict(reversed(values.items())))
    for harmless in (["--finetune.log_every", "3"], ["--log.wandb", "disabled"], ["--evaluate.beam", "1"]):
        assert plan(tmp_path, "tiny", *harmless).key(values) == key
    assert plan(tmp_path, "tiny", "--seed", "1").key(values) != key
    others = {made.key(values | {name: value}) for name, value in
              (("finetune.lr", 0.002), ("pretrain.fda_temperature", 0.5), ("pretrain.negatives.count", 3))}  # fmt: skip
    assert len(others) == 3 and key not in others
    donors = {made.key(values, Donor("a", step, trial)) for step in (5, 10) for trial in ("x", "y")}
    assert len(donors) == 4 and key not in donors


@pytest.mark.parametrize(
    ("recipe", "options", "shared"),
    [
        ("tiny", [], ()),  # temperatures of pre-training differ from trial to trial
        ("tiny", ["--search", "pbt"], ("pretrain",)),
        ("tiny", ["--search", "grid", "--finetune.lr", "choice:0.1/0.2"], ("pretrain",)),
        ("tiny", ["--search", "grid", "--pretrain.lr", "choice:0.1/0.2"], ("pretrain",)),  # two of them
        ("tiny", ["--search", "grid", "--seed", "choice:0/1"], ("pretrain",)),
        ("tiny", ["--search", "pbt", "--pretrain.steps", "0"], ()),
        ("tiny", ["--search", "pbt", "--init", "runs/other"], ("pretrain",)),
        ("blocks", [], ("regions",)),
        ("blocks", ["--model.dropout", "0..0.2"], ()),
        ("blocks", ["--search", "pbt"], ("regions", "pretrain")),
    ],
)
def test_stages_are_shared_where_trials_can_have_them_in_common(
    tmp_path: Path, recipe: str, options: list[str], shared: tuple[str, ...]
) -> None:
    made = plan(tmp_path, recipe, *options)
    assert shared_stages(made.config, made.dimensions) == shared


def test_trials_that_differ_in_fine_tuning_alone_share_one_pretraining(tmp_path: Path) -> None:
    made = plan(tmp_path, "tiny", "--search", "grid", "--pretrain.mvcl_temperature", "choice:0.1/1",
                "--finetune.lr", "choice:0.001/0.002/0.003")  # fmt: skip
    trials = list(points(made))
    keys = {made.key(values) for values in trials}
    folders = {values["pretrain.mvcl_temperature"]: set() for values in trials}
    for values in trials:
        run = made.run_config("k", values)
        folders[values["pretrain.mvcl_temperature"]].add(run.init)
        assert run.pretraining["pretrain"].steps == 0 and run.finetune.lr == float(values["finetune.lr"])
        shared = made.pretraining_config(made.config_of(values))
        assert f"runs/{shared.name}" == run.init
        assert shared.pretraining["pretrain"].mvcl_temperature == float(values["pretrain.mvcl_temperature"])
    assert len(keys) == 6 and [len(found) for found in folders.values()] == [1, 1]
    assert len(set.union(*folders.values())) == 2


def test_a_partly_shared_pretraining_goes_on_in_the_trial(tmp_path: Path) -> None:
    made = plan(tmp_path, "blocks")
    values = own(made)
    run, shared = made.run_config("k", values), made.pretraining_config(made.config_of(values))
    assert run.pretraining["regions"].steps == 0 and run.pretraining["pretrain"].steps > 0
    assert run.init == f"runs/{shared.name}" and run.pretraining["pretrain"].steps
    assert shared.pretraining["regions"].steps > 0 and shared.pretraining["pretrain"].steps == 0
    other = values | {"pretrain.mvcl_temperature": 0.5}
    assert made.pretraining_config(made.config_of(other)).name == shared.name


def test_a_trials_configuration_is_a_recipe(tmp_path: Path) -> None:
    made = plan(tmp_path, "tiny")
    run = made.run_config("abc", own(made))
    path = tmp_path / "trial.yaml"
    path.write_text(to_yaml(run))
    assert read_config(path) == run and run.name == "sweeps/s/trials/abc"


def test_only_last_checkpoints_end_a_stage(tmp_path: Path) -> None:
    config = plan(tmp_path, "tiny").config
    for step in (5, 10):
        assert not has_finished(tmp_path, config, ["pretrain"])
        folder = tmp_path / "checkpoints" / "pretrain" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "COMMIT").write_text("{}")
    assert has_finished(tmp_path, config, ["pretrain"])
