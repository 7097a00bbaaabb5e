"""bench/figures.py: the diagrams of the pages are those that it draws."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pictures_of_the_pages_are_as_drawn(tmp_path):
    command = [sys.executable, ROOT / "bench" / "figures.py", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    drawn = sorted(tmp_path.iterdir())
    assert [path.name for path in drawn] == ["attention.svg", "order.svg", "overview.svg"]
    for path in drawn:
        xml.parse(path)
        kept = ROOT / "docs" / "img" / path.name
        assert path.read_text() == kept.read_text(), f"run bench/figures.py again: {kept} is older"


def test_every_picture_of_a_page_is_there():
    for page in (ROOT / "docs").glob("*.md"):
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name} shows {picture}"
