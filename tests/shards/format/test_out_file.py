"""A file that cannot be written is one line, and no part of it is left."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.format.out_file import require_place, write_out


def test_half_a_file_is_not_left(tmp_path: Path) -> None:
    out = require_place(tmp_path / "scores.json")
    write_out(out, "earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(
            DataError, match=r"^.*scores.json cannot be written \(File too large\): choose another --out$"
        ):
            write_out(out, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"] and out.read_text() == "earlier"


def test_a_name_that_no_disk_takes_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written \(File name too long\)"):
        write_out(tmp_path / ("x" * 250), "")
