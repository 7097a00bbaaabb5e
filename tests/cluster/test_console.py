"""Console scripts: each that pyproject.toml names leads to a command that is there."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path

from cluster.console import DOORS

ROOT = Path(__file__).resolve().parents[2]


def test_every_script_has_a_door() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    ours = {name for name, target in scripts.items() if target == "cluster.console:run"}
    assert ours == set(DOORS) and "idc-score" in ours
    assert [module for module in DOORS.values() if find_spec(module) is None] == []
