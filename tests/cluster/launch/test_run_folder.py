"""A run folder belongs to one configuration and one set of data; the root is found without being told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testing.models.checkpoints import commit

from cluster.config.fields import Config
from cluster.config.options import override
from cluster.errors import ConfigError
from cluster.launch import run_folder
from cluster.recipes.commandline import read_config
from cluster.recipes.registry import RECIPES

DATA = {"shards": "abc", "features": "def"}


def begin(root: Path, config: Config, data: dict[str, str] = DATA) -> Path:
    run = run_folder.check_run(root, config)
    run_folder.open_run(run, config, data)
    return run


def begun_pretrain(root: Path) -> Path:
    run = begin(root, RECIPES["tiny"]())
    commit(run / "checkpoints" / "pretrain", 5)
    return run


def test_the_resolved_configuration_is_saved_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run = begun_pretrain(tmp_path)
    assert run == tmp_path / "runs" / "tiny"
    assert read_config(run / "config.yaml") == RECIPES["tiny"]()
    assert begin(tmp_path, RECIPES["tiny"]()) == run


def test_another_configuration_is_refused_and_the_field_named(tmp_path: Path) -> None:
    begun_pretrain(tmp_path)
    with pytest.raises(ConfigError, match=r"made with --pretrain.lr 0.001 and this command has 0.5") as caught:
        begin(tmp_path, override(RECIPES["tiny"](), [("pretrain.lr", "0.5")]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [
    ("evaluate.beam", "5"), ("log.wandb", "offline"), ("finetune.lr", "0.5"), ("cluster.workers", "3"),
    ("cluster.zero_stage", "2"),
])  # fmt: skip
def test_harmless_fields_and_stages_not_begun_may_differ(tmp_path: Path, change: tuple[str, str]) -> None:
    run = begun_pretrain(tmp_path)
    config = override(RECIPES["tiny"](), [change])
    begin(tmp_path, config)
    assert read_config(run / "config.yaml") == config


def test_what_was_left_to_the_machine_may_be_named_on_resuming(tmp_path: Path) -> None:
    """The folder keeps what the user gave; a machine with other GPUs is told the precision that the run began with."""
    run = begun_pretrain(tmp_path)
    assert read_config(run / "config.yaml").cluster.precision == "auto"
    begin(tmp_path, override(RECIPES["tiny"](), [("cluster.precision", "fp32")]))
    with pytest.raises(ConfigError, match="made with --cluster.precision fp32 and this command has bf16"):
        begin(tmp_path, override(RECIPES["tiny"](), [("cluster.precision", "bf16")]))


def test_before_the_first_checkpoint_anything_may_differ(tmp_path: Path) -> None:
    begin(tmp_path, RECIPES["tiny"]())
    begin(tmp_path, override(RECIPES["tiny"](), [("pretrain.lr", "0.5")]), {"shards": "other", "features": "def"})


def test_other_data_are_refused(tmp_path: Path) -> None:
    begun_pretrain(tmp_path)
    with pytest.raises(ConfigError, match="was trained on other features"):
        begin(tmp_path, RECIPES["tiny"](), DATA | {"features": "changed"})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="is not a run folder"):
        begin(tmp_path, RECIPES["tiny"]())


def test_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IDC_HOME", raising=False)
    checkout, copy = Path("/src/idc"), Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1")
    assert run_folder.find_root("", checkout) == checkout
    assert run_folder.find_root("", copy) == Path.home() / "idc", "Ray deletes the copy that a job runs in"
    monkeypatch.setenv("IDC_HOME", str(tmp_path))
    assert run_folder.find_root("", copy) == tmp_path
    assert run_folder.find_root(str(tmp_path / "x"), copy) == tmp_path / "x"


def test_provenance_grows_with_each_command(tmp_path: Path) -> None:
    run_folder.write_provenance(tmp_path, tmp_path)
    run_folder.write_provenance(tmp_path, Path(__file__).resolve().parents[3])
    first, second = json.loads((tmp_path / "provenance.json").read_text())
    assert first["git"] is None and first["packages"]["torch"] and first["command"] and first["host"]
    assert second["git"] is None or len(second["git"]["sha"]) == 40


def test_what_diverged_goes_on_with_less_and_the_folder_says_from_where(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The options that the end of a run that diverged proposes are accepted: lower, or a bound where there was none."""
    run, config = begun_pretrain(tmp_path), RECIPES["tiny"]()
    lowered = override(config, [("pretrain.lr", "0.0005"), ("pretrain.clip", "0.25"), ("pretrain.skip_limit", "9")])
    begin(tmp_path, lowered)
    assert read_config(run / "config.yaml") == lowered
    lines = [json.loads(line) for line in (run / "changes.jsonl").read_text().splitlines()]
    assert [{name: line[name] for name in ("option", "old", "new", "step")} for line in lines] == [
        {"option": "pretrain.lr", "old": 0.001, "new": 0.0005, "step": 5},
        {"option": "pretrain.clip", "old": 1.0, "new": 0.25, "step": 5},
    ]
    assert "--pretrain.lr was 0.001 and is 0.0005 from step 5 on (changes.jsonl)" in capsys.readouterr().err
    begin(tmp_path, lowered)
    assert len((run / "changes.jsonl").read_text().splitlines()) == 2, "the same command again changes nothing"
    for option, value in (("lr", "0.001"), ("clip", "0"), ("weight_decay", "0")):
        with pytest.raises(ConfigError, match=f"made with --pretrain.{option}"):
            begin(tmp_path, override(lowered, [(f"pretrain.{option}", value)]))
    commit(run / "checkpoints" / "pretrain", 10)  # the stage is over: nothing of it can change any more
    with pytest.raises(ConfigError, match="made with --pretrain.lr 0.0005"):
        begin(tmp_path, override(lowered, [("pretrain.lr", "0.0001")]))
