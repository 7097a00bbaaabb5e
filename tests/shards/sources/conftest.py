"""Small photos for the layouts that the tests of sources build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def write_photo() -> Callable[..., bytes]:
    """Writes an image of one colour, made from its path, with the folders it needs; returns its bytes."""

    def write(path: Path, form: str = "JPEG") -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        color = tuple(sum(path.as_posix().encode()) * factor % 256 for factor in (1, 7, 31))
        Image.new("RGB", (24, 16), color).save(path, form)
        return path.read_bytes()

    return write
