"""What the tests are run by: markers that are asked for, data made once for all workers, files dealt out by a table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from testing.suite.made_once import made_once
from testing.suite.marked import needs
from testing.suite.workers import FIRST, place

ROOT = Path(__file__).resolve().parents[1]


def test_who_starts_ranks_needs_the_marker() -> None:
    with pytest.raises(AssertionError, match="test_who_starts_ranks.* needs @pytest.mark.ranks"):
        needs("ranks")


@pytest.mark.ranks
def test_who_has_the_marker_is_let_pass() -> None:
    needs("ranks")


def test_workers_that_ask_at_once_get_the_same_folder_made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    with ThreadPoolExecutor(4) as askers:
        folders = list(askers.map(lambda _: made_once(tmp_path_factory, "asked-at-once", make), range(4)))
    assert made == folders[:1] and len(set(folders)) == 1 and (folders[0] / "file").read_text() == "whole"


def test_what_failed_is_made_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    def half(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        made_once(tmp_path_factory, "failed-once", half)
    folder = made_once(tmp_path_factory, "failed-once", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_the_table_of_what_comes_first_names_what_is_there() -> None:
    files = [name for line in FIRST for name in line]
    assert all((ROOT / name).exists() for name in files) and len(set(files)) == len(files)
    places = [place(f"{name}::test_anything") for name in files]
    assert places == sorted(places) and set(places) == set(range(len(FIRST)))
    assert place("tests/test_suite.py::test_anything") == len(FIRST)
