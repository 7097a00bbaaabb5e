"""The command of a sweep: what goes on, what is added, what is refused before anything is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from tune.commandline import parse, save
from tune.search.points import points
from tune.search.table import FINISHED, Table

ROOT = Path(__file__).resolve().parents[2]


def sweep(tmp_path: Path, *words: str):
    return parse([*words, "--root", str(tmp_path)])


def finish(begun) -> None:
    """Marks all trials of a sweep as done."""
    table = Table(begun.plan.folder)
    for _, values in zip(range(begun.target), points(begun.plan), strict=False):
        table.start(begun.plan.key(values), values)
        table.end(begun.plan.key(values), FINISHED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tiny", "--trails", "3"), "unknown option --trails"),
        (("tinny",), "did you mean tiny?"),
        (("tiny", "--trials", "0"), "--trials '0' must be a whole number above 0"),
        (("tiny", "--add", "3"), "there is no such sweep yet"),
        (("tiny", "--resume"), "there is no sweep"),
        (("tiny", "--search", "asha"), "--search 'asha' is not a search"),
        (("tiny", "--search", "grid"), "nothing is varied"),
        (("tiny", "--search", "grid", "--finetune.lr", "0.1..1"), "--finetune.lr 0.1..1 is no choice"),
        (("tiny", "--search", "pbt", "--pretrain.lr", "0.1..1"), "PBT goes by validation scores"),
        (("tiny", "--finetune.validate_every", "0"), "set --finetune.steps and --finetune.validate_every"),
        (("tiny", "--stage", "all"), "unknown option --stage"),
        (("tiny", "--finetune.lr", "0.1", "--finetune.lr=0.1..1", "--pretrain.lr"), "--pretrain.lr needs a value"),
        (("tiny", "--model.vocab_size", "9"), "read from the data"),
        (("tiny", "--name", "../x"), "it names a folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep(tmp_path, *words)
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_has_one_worker_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert sweep(tmp_path, "tiny").plan.config.cluster.workers == 1
    assert sweep(tmp_path, "tiny", "--cluster.workers", "2").plan.config.cluster.workers == 2


def test_a_population_keeps_every_checkpoint_that_was_scored(tmp_path: Path) -> None:
    words = ("--finetune.steps", "160", "--finetune.validate_every", "40", "--finetune.checkpoint_every", "5")
    finetune = sweep(tmp_path, "tiny", "--search", "pbt", *words).plan.config.finetune
    saved = [step for step in range(1, 161) if step % finetune.checkpoint_every == 0 or step % 40 == 0]
    assert set(saved[-finetune.keep :]) >= {40, 80, 120, 160}


def test_the_same_command_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    begun = sweep(tmp_path, "tiny", "--finetune.lr", "log:0.001..0.01", "--trials", "4")
    save(begun)
    assert sweep(tmp_path, "tiny", "--finetune.lr", "log:0.001..0.01").target == 4
    assert sweep(tmp_path, "tiny", "--finetune.lr", "log:0.001..0.01", "--finetune.log_every", "3").target == 4
    for words, said in (
        (
            ("--finetune.lr", "log:0.001..0.02"),
            "begun with --finetune.lr log:0.001..0.01 and this command has log:0.001..0.02",
        ),
        (("--finetune.lr", "0.01"), "begun with --finetune.lr log:0.001..0.01 and this command has fixed"),
        (("--finetune.lr", "log:0.001..0.01", "--finetune.steps", "20"), "begun with --finetune.steps 10"),
        (("--finetune.lr", "log:0.001..0.01", "--search", "random"), "begun with --search tpe"),
    ):
        with pytest.raises(ConfigError) as error:
            sweep(tmp_path, "tiny", *words)
        assert said in str(error.value)


def test_resume_needs_no_options(tmp_path: Path) -> None:
    begun = sweep(tmp_path, "tiny", "--finetune.lr", "log:0.001..0.01", "--trials", "4", "--search", "random")
    save(begun)
    again = sweep(tmp_path, "tiny", "--resume")
    assert (again.plan, again.given, again.target, again.recipe) == (begun.plan, begun.given, 4, "tiny")
    assert sweep(tmp_path, "--resume", "--name", "tiny").plan == begun.plan
    with pytest.raises(ConfigError, match="leave out --finetune.lr"):
        sweep(tmp_path, "tiny", "--resume", "--finetune.lr", "0.1")


def test_more_trials_are_added_once(tmp_path: Path) -> None:
    begun = sweep(tmp_path, "tiny", "--search", "random", "--trials", "3")
    save(begun)
    assert sweep(tmp_path, "tiny", "--search", "random", "--add", "2").target == 3, "three are still to be run"
    finish(begun)
    more = sweep(tmp_path, "tiny", "--search", "random", "--add", "2")
    save(more)
    assert more.target == 5
    assert sweep(tmp_path, "tiny", "--search", "random", "--add", "2").target == 5, "the same command after a kill"
    finish(more)
    assert sweep(tmp_path, "tiny", "--resume", "--add", "1").target == 6


@pytest.mark.slow
def test_the_command_itself() -> None:
    done = subprocess.run([sys.executable, "tune/sweep.py", "tiny", "--trails", "3"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean" in done.stderr
    done = subprocess.run([sys.executable, "tune/sweep.py", "tiny", "--help"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0 and "--finetune.lr                    log:0.00033..0.003" in done.stdout
