"""The commands of docs/sweeps.md are taken by those who are to run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tune.commandline import DEFAULT_REPEATS, DEFAULT_TOP, parse, save
from tune.report.importance import FEWEST, TRUSTED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text()
LINES = [line for block in PAGE.split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]
ROWS = re.findall(r"^\| `(--\S+ \S+)` \|", PAGE, re.M)


@pytest.mark.parametrize("line", LINES)
def test_the_sweep_takes_the_command(line: str, tmp_path: Path) -> None:
    words = shlex.split(line.partition(" -- ")[2] or line, comments=True)
    script = next(number for number, word in enumerate(words) if word.endswith(("tune/sweep.py", "slurm/sweep.sh")))
    assert (ROOT / words[script]).is_file()
    arguments = words[script + 1 :]
    if {"--add", "--resume"} & set(arguments):
        save(parse(["blocks", "--root", str(tmp_path)]))
    assert parse([*arguments, "--root", str(tmp_path)]).target > 0


def test_the_options_of_the_table_are_what_it_says() -> None:
    assert len(ROWS) == 5
    plan = parse(["tiny", *(word for row in ROWS for word in row.split())]).plan
    shown = {one.name: str(one) for one in plan.dimensions}
    assert all(shown.get(row.split()[0][2:]) == row.split()[1] for row in ROWS[:3])
    assert not {"pretrain.weights.classify", "finetune.steps"} & shown.keys()


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert (
        f"The best `--top` trials ({DEFAULT_TOP}) are trained again with `--repeats` further seeds ({DEFAULT_REPEATS})"
        in text
    )
    assert f"It needs {FEWEST} trials" in text and "a fifth of the variance" in text and TRUSTED == 1 / 5
