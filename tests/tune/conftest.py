"""The data of the recipe `tiny`, made once for the sweeps of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import prepare


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with data/ of the recipe `tiny`."""
    root = tmp_path_factory.mktemp("sweeps")
    prepare.main(["tiny", "--root", str(root), "--data.pack_workers", "1"])
    return root
