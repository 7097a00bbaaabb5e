"""A packed folder of tiny_source for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from testing.tiny_source import TinySource

from shards.pack import pack


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """A finished shard folder; not to be written to."""
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    pack(TinySource(), folder)
    return folder


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))
