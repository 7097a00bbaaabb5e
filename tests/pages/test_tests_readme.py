"""tests/README.md names every marker that tests may carry."""

from __future__ import annotations

import re
import tomllib

from pages.doc_pages import ROOT, read


def test_every_marker_has_a_row() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = {marker.partition(":")[0].partition("(")[0].strip() for marker in settings["markers"]}
    table = read("tests/README.md").partition("| marker |")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == markers
