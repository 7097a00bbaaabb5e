"""docs/data.md: its Python runs, and its commands are those of the parsers."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

from shards import check as auditing
from shards import pack as packing
from shards import show as showing
from shards import verify as verifying
from shards.sources.blocks import BlocksOptions

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()


def test_the_reading_example_runs(packed):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict = {}
    exec(code.replace("data/blocks", str(packed)).replace("global_batch=32", "global_batch=16"), names)
    assert names["before"].shape == names["after"].shape == (16, 24, 3)
    assert names["record"]["kind"] == "pair"


def test_the_commands_are_understood(packed, tmp_path, monkeypatch):
    commands = re.findall(r"^python -m shards\.(\w+) (.*)$", PAGE, re.M)
    commands = [(name, arguments) for name, arguments in commands if name == "pack" or arguments == "data/blocks"]
    assert [name for name, _ in commands] == ["pack", "pack", "verify", "check", "show"]
    for name, arguments in commands:
        if name == "pack":
            assert packing.make_parser().parse_args(shlex.split(arguments)).out.startswith("data/")
        else:
            command = {"verify": verifying, "check": auditing, "show": showing}[name]
            monkeypatch.chdir(tmp_path)
            found = command.main([arguments.replace("data/blocks", str(packed))])
            assert found == (1 if name == "check" else 0)  # the little squares of its splits are the same
    packed.with_suffix(".html").unlink()  # the contact sheet; other tests use the folder too


def test_the_help_tells_the_true_defaults_of_blocks(capsys):
    with pytest.raises(SystemExit):
        packing.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for option, value in asdict(BlocksOptions()).items():
        if option == "seed":
            continue
        text = {"scenes": ",", "size": "x"}.get(option, "").join(
            map(str, value if isinstance(value, tuple) else [value])
        )
        assert re.search(rf"--{option.replace('_', '-')} \S+ [^-]*\(default: {re.escape(text)}\)", told), option


@pytest.mark.parametrize("option", re.findall(r"`(--[a-z-]+)", PAGE))
def test_every_option_on_the_page_exists(option, capsys):
    for command in (packing, auditing):
        with pytest.raises(SystemExit):
            command.main(["--help"])
    assert re.search(rf"{option}\b", capsys.readouterr().out)
