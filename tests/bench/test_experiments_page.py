"""docs/experiments.md: every entry is whole and short, in order, and its commands are those of the programs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.ablations.tables import SCALES, TABLES  # noqa: E402
from cluster.recipes.commandline import help_text, load_recipe, parse  # noqa: E402

PAGE = (ROOT / "docs" / "experiments.md").read_text()
LOG = PAGE.split("\n## ")[0]
ENTRIES = re.split(r"\n### ", LOG)[1:]
WORDS = 120


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.split(".")[0])
def test_an_entry_has_date_commit_numbers_and_what_became_of_it(entry):
    title, _, text = entry.partition("\n\n")
    assert re.fullmatch(r"E\d+\. .+", title)
    assert re.match(r"20\d\d-\d\d-\d\d, [0-9a-f]{7}\b", text)
    assert len(re.findall(r"^\|.*\d.*\|$", text, re.M)) >= 1, "no numbers"
    assert re.search(r"[Kk]ept|Superseded|[Tt]aken out|off by default", text), "kept or not"
    assert re.search(r"`(python|idc\.|--|tests/)|\bgone\b|\(E\d+\)", text), (
        "neither a command nor that its code is gone"
    )
    prose = "\n".join(line for line in entry.splitlines() if not line.startswith("|"))
    assert len(prose.split()) <= WORDS


def test_the_newest_come_first():
    numbers = [int(re.match(r"E(\d+)", entry)[1]) for entry in ENTRIES]
    assert numbers == list(range(len(numbers), 0, -1))
    dates = [re.search(r"20\d\d-\d\d-\d\d", entry)[0] for entry in ENTRIES]
    assert dates == sorted(dates, reverse=True)
    assert {int(number) for number in re.findall(r"\bE(\d+)\b", PAGE)} <= set(numbers)


@pytest.mark.parametrize("command", re.findall(r"`python cluster/train\.py ([^`]*)`", PAGE))
def test_its_trainings_are_possible(command):
    assert parse(shlex.split(command)).config


@pytest.mark.parametrize("command", re.findall(r"`python bench/ablation\.py ([^`]*)`", PAGE))
def test_its_ablations_exist(command):
    table, *options = command.split()
    assert table in TABLES and (not options or (options[0] == "--scale" and options[1] in SCALES))


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--(?:data|backbone|finetune|pretrain)\.[\w.]+)", PAGE))))
def test_its_options_exist(option):
    assert f"{option} " in help_text(load_recipe("blocks"))
