"""No check hangs, and none ends the command: what a check that stands still, fails or is killed is said as."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cluster.checks import limited
from cluster.checks.finding import MISS, OK

TOKEN = "abc"


def settings(root: Path) -> dict:
    return {"root": str(root), "token": TOKEN, "node": "node-0", "limit_s": 1.0}


def test_a_check_that_hangs_is_a_finding(tmp_path: Path) -> None:
    place = tmp_path / f".doctor-{TOKEN}"
    place.mkdir()
    os.mkfifo(place / "node-0.partial")  # to open it is to wait for a reader, for ever
    started = time.monotonic()
    (found,) = limited.run("folder", settings(tmp_path), 1.5)
    assert time.monotonic() - started < 10
    assert found.level == MISS and "not done within 1.5 s: it waited for the shared folder to write to" in found.found
    assert found.fix


def test_a_check_that_fails_is_a_finding(tmp_path: Path) -> None:
    (found,) = limited.run("folder", {"root": str(tmp_path)}, 30)  # no token
    assert found.level == MISS and "KeyError: 'token'" in found.found and found.fix


def test_files_of_a_node_that_is_not_there_are_missed(tmp_path: Path) -> None:
    (wrote,) = limited.run("folder", settings(tmp_path), 30)
    assert wrote.level == OK and wrote.facts["first"] is True
    (again,) = limited.run("folder", {**settings(tmp_path), "node": "node-1"}, 30)
    assert again.level == OK and again.facts["first"] is False  # the lock is the other's
    both = {**settings(tmp_path), "nodes": ["node-0", "node-1"]}
    (found,) = limited.run("readback", both, 30)
    assert found.level == OK and "2 nodes" in found.found
    (found,) = limited.run("readback", {**both, "nodes": ["node-0", "node-2"]}, 30)
    assert found.level == MISS and "what node-2 wrote is not there" in found.found
    assert limited.run("tidy", both, 30) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # torch is imported
def test_a_rank_that_is_alone_says_so() -> None:
    alone = {"rank": 0, "world": 2, "address": "127.0.0.1", "port": 0, "gpu": None, "gpu_ranks": [], "limit_s": 1.0}
    (found,) = limited.run("reduce", alone, 60)
    assert found.level == MISS and found.check == "gloo"
    assert "rank 0 of 2" in found.found and "GLOO_SOCKET_IFNAME" in found.fix
