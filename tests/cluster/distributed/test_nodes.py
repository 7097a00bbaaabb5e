"""Waiting for the nodes of a Ray cluster: what it says where they do not come. That they come: tests/slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("address", "arguments", "code", "message"),
    [
        ("127.0.0.1:9", ("2", "--limit", "0.3"), 1, "no Ray head at 127.0.0.1:9 after 0.3 s"),  # nothing listens there
        ("", ("2",), 2, "RAY_ADDRESS must be the Ray cluster's HOST:PORT"),
        ("127.0.0.1:9", ("2", "--limt", "3"), 2, "did you mean --limit?"),
    ],
)
def test_what_is_missing_is_said(address: str, arguments: tuple[str, ...], code: int, message: str) -> None:
    command = [sys.executable, "-m", "cluster.distributed.nodes", *arguments]
    environment = os.environ | {"RAY_ADDRESS": address}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert message in done.stderr
