"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data to test against: $IDC_SHARED, or ../shared/data next to the checkout."""
    path = Path(os.environ.get("IDC_SHARED") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set IDC_SHARED to the folder that has clevr_change_sample")
    return path
