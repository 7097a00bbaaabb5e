"""A root with the data of the recipe `tiny`, for the sweeps of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A root with data/ of the recipe `tiny`."""
    root = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(tiny_data, root / "data")
    return root
