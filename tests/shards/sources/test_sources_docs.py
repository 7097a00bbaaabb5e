"""docs/sources.md: a section a source that reads a folder, with commands that are those of the parser."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from shards.pack import make_parser
from shards.sources import SOURCES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sources.md").read_text()


def test_every_source_that_reads_a_folder_has_a_section():
    assert set(re.findall(r"^## (\w+)$", PAGE, re.M)) >= {name for name, adapter in SOURCES.items() if adapter.root}


def test_the_commands_of_a_section_pack_its_source():
    for section in PAGE.split("\n## ")[1:]:
        commands = re.findall(r"^python -m shards\.pack (.*)$", section, re.M)
        assert commands
        for command in commands:
            given = make_parser().parse_args(shlex.split(command))
            assert given.source == section.split()[0] and given.root and given.out.startswith("data/")
