"""docs/blocks.md and docs/negatives.md: the example runs, the commands are those of the programs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from shards import pack as packing
from shards.sources.blocks import BlocksOptions

ROOT = Path(__file__).resolve().parents[3]
BLOCKS, NEGATIVES = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("blocks", "negatives"))


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", BLOCKS, re.S)
    names: dict = {}
    exec(code, names)
    assert names["before"].startswith(b"\xff\xd8") and capsys.readouterr().out.endswith(" True\n")


def test_the_defaults_are_those_of_the_source():
    rows = dict(re.findall(r"^\| (`[^|]*`) \| ([\d, x]+) \|", BLOCKS, re.M))
    told = {name: value for names, values in rows.items() for name, value in _named(names, values)}
    for option, value in asdict(BlocksOptions()).items():
        expected = " x ".join(map(str, value)) if option == "size" else value
        expected = ", ".join(map(str, value)) if option == "scenes" else expected
        assert told[option] in (str(expected), f"{value:g}" if isinstance(value, float) else ""), option


def _named(names: str, values: str) -> list[tuple[str, str]]:
    """`size`, `supersample` | 336 x 224, 1 -> a value for each of the two names; one name takes all there is."""
    found = re.findall(r"`(\w+)`", names)
    return list(zip(found, [values] if len(found) == 1 else values.split(", "), strict=True))


@pytest.mark.parametrize("command", re.findall(r"^python -m shards\.pack (.*)$", BLOCKS + NEGATIVES, re.M))
def test_packing_commands_are_understood(command):
    options = packing.make_parser().parse_args(shlex.split(command))
    assert (options.source, options.out) == ("blocks", "data/blocks")


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"python (bench/\w+\.py[^`\n]*)", BLOCKS + NEGATIVES))), ids=lambda text: text
)
def test_measuring_commands_are_understood(command, tmp_path):
    """With --help at the end, which checks the words before it and measures nothing."""
    program, *words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, ROOT / program, *words, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    flags = [word for word in words if word.startswith("--")]
    assert all(flag in done.stdout for flag in flags)
