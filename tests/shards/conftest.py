"""A packed folder of tiny_source, and small photos, for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from testing.tiny_source import TinySource

from shards.checks.verification import verify
from shards.pack import main, pack
from shards.reading.reader import Folder


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


@pytest.fixture
def write_photo() -> Callable[..., bytes]:
    """Writes an image of one colour, made from its path, with the folders it needs; returns its bytes."""

    def write(path: Path, form: str = "JPEG") -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        color = tuple(sum(path.as_posix().encode()) * factor % 256 for factor in (1, 7, 31))
        Image.new("RGB", (24, 16), color).save(path, form)
        return path.read_bytes()

    return write


@pytest.fixture
def pack_root(tmp_path, capsys) -> Callable[..., tuple[Folder, str]]:
    """Packs a root by the command, with more options; the verified shard folder, and what was printed."""

    def packed(source: str, root: Path, *options: str) -> tuple[Folder, str]:
        out = tmp_path / "out"
        assert main([source, "--root", str(root), "--out", str(out), "--workers", "1", *options]) == 0
        assert verify(out) == []
        return Folder.open(out), capsys.readouterr().out

    return packed
