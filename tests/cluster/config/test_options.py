"""Options: their types and comments, the recipes that they change, and that what is accepted is saved whole."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.config.fields import (
    DERIVED,
    Config,
    StageConfig,
    is_harmless,
    task_batch_size,
    task_group,
    task_micro_batches,
)
from cluster.config.options import convert, differences, field_comments, from_dict, options, override, to_yaml
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.recipes import commandline
from cluster.recipes.registry import RECIPES

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_possible_and_survive_yaml(name: str) -> None:
    config = RECIPES[name]()
    validate(config)
    assert config.name == name
    assert from_dict(Config(), yaml.safe_load(to_yaml(config))) == config


def test_every_option_of_a_run_has_a_comment() -> None:
    bare = {o.name for o in options(Config()) if not o.comment and not o.name.startswith("model.")}
    assert bare == set()


def test_a_table_is_set_by_entry_or_as_a_whole() -> None:
    tiny = RECIPES["tiny"]()
    entry = override(tiny, [("pretrain.ratios.mlm", "8")])
    assert entry.pretraining["pretrain"].ratios == tiny.pretraining["pretrain"].ratios | {"mlm": 8.0}
    whole = override(tiny, [("pretrain.ratios", "mlm=8, fda=2")])
    assert whole.pretraining["pretrain"].ratios == {"mlm": 8.0, "fda": 2.0}
    assert [name for name, _, _ in differences(tiny, whole)] == ["pretrain.ratios"]


def test_pretraining_stages_have_the_names_that_the_recipe_gives_them(tmp_path: Path) -> None:
    tiny = RECIPES["tiny"]()
    stage = tiny.pretraining["pretrain"]
    config = dataclasses.replace(tiny, pretraining={"photos": stage, "pairs": dataclasses.replace(stage, lr=0.5)})
    config = override(config, [("photos.steps", "3"), ("photos.ratios.mlm", "7"), ("pairs.keep", "9")])
    validate(config)
    assert config.stages == ("photos", "pairs", "finetune")
    assert (config.stage("photos").steps, config.stage("pairs").steps, config.stage("pairs").lr) == (3, 10, 0.5)
    assert config.stage("photos").ratios["mlm"] == 7 and config.stage("pairs").ratios == stage.ratios
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert commandline.load_recipe(str(path)) == config
    assert commandline.parse([str(path), "--stage", "pretrain"]).training_stages == ("photos", "pairs")
    assert ("pretrain.steps", 10, None) in differences(tiny, config)
    with pytest.raises(ConfigError, match="did you mean --photos.steps"):
        override(config, [("photo.steps", "3")])
    for name in ("data", "evaluate", "Photos"):
        with pytest.raises(ConfigError, match=f"pretraining stage '{name}'"):
            validate(dataclasses.replace(tiny, pretraining={name: stage}))


def test_options_that_are_possible_only_together() -> None:
    """In turn, either would be refused: heads 3 does not divide d_model 32, and d_model 48 needs no other heads."""
    config = override(RECIPES["tiny"](), [("model.heads", "3"), ("model.d_model", "48")])
    assert (config.model.heads, config.model.d_model) == (3, 48)


def test_numbers_and_tuples_convert_strictly() -> None:
    assert convert(float, 3, "x") == 3.0
    assert convert(tuple[int, ...], "", "x") == ()
    assert convert(tuple[float, float], [0.9, 1], "x") == (0.9, 1.0)
    for kind, value in ((int, 1.5), (int, True), (float, "1_0.0.1"), (str, 5), (bool, 1)):
        with pytest.raises(ConfigError):
            convert(kind, value, "x")


def test_comments_are_found_wherever_they_stand() -> None:
    @dataclasses.dataclass
    class Fields:
        behind: int = 1  # says one
        # says
        # two
        above: int = 2
        under: int = 3
        """says three"""

    assert field_comments(Fields) == {"behind": "says one", "above": "says two", "under": "says three"}


def test_micro_batches_keep_groups_whole_and_even_out_the_share() -> None:
    stage = StageConfig(global_batch_size=48, micro_batch_size=20, contrastive_group=4, batch_sizes={"fda": 14})
    assert task_batch_size(stage, "fda") == 14
    assert task_micro_batches(stage, "fda", 2) == (1, 7)
    assert task_micro_batches(stage, "mlm", 2) == (2, 12)  # of 24; 20 is the most at once
    assert task_micro_batches(stage, "mvcl", 2) == (2, 12)
    assert task_micro_batches(stage, "mvcl", 1) == (3, 16)
    assert task_micro_batches(stage, "mvcl", 5) == (1, 12)  # 3 groups for some, 2 for others
    assert task_group(stage, "mvcl") == 4 and task_group(stage, "mlm") == 1


def test_what_may_differ_on_resume() -> None:
    assert is_harmless("evaluate.beam") and is_harmless("log.wandb") and is_harmless("pretrain.keep")
    assert not is_harmless("pretrain.lr") and not is_harmless("seed") and not is_harmless("cluster.precision")
    assert is_harmless("cluster.workers") and is_harmless("cluster.zero_stage")


def test_saved_configuration_is_a_recipe(tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    config = override(RECIPES["tiny"](), [("pretrain.lr", "0.5"), ("data.blocks.scenes", "3,2,1")])
    saved.write_text(to_yaml(config))
    assert commandline.parse([str(saved)]).config == config
    saved.write_text(to_yaml(config).replace("lr: 0.5", "lr: fast"))
    with pytest.raises(ConfigError, match="config.yaml: --pretrain.lr 'fast'"):
        commandline.parse([str(saved)])


def test_stages_of_a_command() -> None:
    assert commandline.parse(["tiny"]).training_stages == ("pretrain", "finetune")
    assert commandline.parse(["tiny", "--pretrain.steps=0"]).training_stages == ("finetune",)
    assert commandline.parse(["tiny", "--stage", "evaluate"]).training_stages == ()
    train = commandline.parse(["tiny", "--stage", "train"])
    assert train.training_stages == ("pretrain", "finetune") and not train.evaluates
    assert commandline.parse(["tiny", "--name", "sweeps/one/trials/a1"]).config.name == "sweeps/one/trials/a1"
    for name in ("a/../b", "/a", "a/", "a//b", "a/.b"):
        with pytest.raises(ConfigError, match="--name"):
            commandline.parse(["tiny", "--name", name])


@pytest.mark.parametrize("stage", ["finetune", "evaluate"])
def test_stages_that_a_command_does_not_run_are_not_looked_at(stage: str) -> None:
    """Another stage's batch that its workers do not divide, and what is impossible of it at any number."""
    words = ["tiny", "--cluster.workers", "4", "--pretrain.global_batch_size", "9", "--pretrain.clip", "-1"]
    assert commandline.parse([*words, "--stage", stage]).stage == stage
    for refused in ("pretrain", "train", "all"):
        with pytest.raises(ConfigError, match="--pretrain.clip"):
            commandline.parse([*words, "--stage", refused])
    finetune = ["tiny", "--finetune.references", "0", "--finetune.global_batch_size", "9", "--cluster.workers", "2"]
    assert commandline.parse([*finetune, "--stage", "pretrain"]).asked_stages == ("pretrain",)
    with pytest.raises(ConfigError, match="--finetune.global_batch_size 9"):
        commandline.parse([*finetune, "--stage", "finetune"])
    with pytest.raises(ConfigError, match="--cluster.threads"):  # of the whole configuration
        commandline.parse([*words, "--stage", stage, "--cluster.threads", "0"])


def test_workers_may_be_left_open_and_halves_of_gpus_are_typed() -> None:
    cluster = commandline.parse(["tiny"]).config.cluster
    assert (cluster.workers, cluster.gpus_per_worker, cluster.precision) == (0, "auto", "auto")
    for text, value in (("auto", "auto"), ("0", 0), ("0.5", 0.5), ("1", 1)):
        assert commandline.parse(["tiny", "--cluster.gpus_per_worker", text]).config.cluster.gpus_per_worker == value
    for option, value in (("gpus_per_worker", "2"), ("gpus_per_worker", "0.3"), ("workers", "-1")):
        with pytest.raises(ConfigError, match=f"--cluster.{option}"):
            commandline.parse(["tiny", f"--cluster.{option}", value])


@pytest.mark.slow
def test_a_misspelt_option_ends_with_exit_code_2_and_one_line() -> None:
    command = [sys.executable, "cluster/train.py", "tiny", "--pretrain.stepz", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "unknown option --pretrain.stepz; did you mean --pretrain.steps?\n"


def test_help_lists_every_option_with_its_default() -> None:
    text = commandline.help_text(RECIPES["tiny"]())
    for option in options(RECIPES["tiny"]()):
        assert (f"--{option.name} " in text) == (option.name not in DERIVED)
    assert "[mlm=2,mvcl=1" in text
