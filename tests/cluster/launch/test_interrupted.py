"""Ctrl-C, which a terminal gives to all processes of a command: one line that says how to go on, and nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.launch import asked

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60


@pytest.mark.slow
@pytest.mark.parametrize("command", ["shards.pack", "cluster.features"])
def test_commands_with_processes_end_with_a_line(command: str, tiny_data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = {
        "shards.pack": ["blocks", "--scenes", "300,8,8", "--size", "64x48", "--out", out, "--workers", "2"],
        "cluster.features": [str(tiny_data / "tiny"), "--out", out, "--size", "48", "64", "--workers", "2"],
    }
    driver = subprocess.Popen(
        [sys.executable, "-m", command, *words[command]], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline, family = time.monotonic() + LIMIT_S, []
    while sum("spawn_main" in " ".join(each.cmdline()) for each in family) < 2:  # they still import
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
        family = [each for each in psutil.Process(driver.pid).children() if each.is_running()]
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == 130, said
    assert said.splitlines()[-1].startswith("interrupted; to go on: ") and f"-m {command} " in said.splitlines()[-1]
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_a_first_ctrl_c_asks_and_a_second_one_ends(tmp_path: Path, capfd) -> None:
    with asked.listening():
        with pytest.raises(KeyboardInterrupt):  # no step is under way: there is nothing to wait for
            os.kill(os.getpid(), signal.SIGINT)
        with asked.heeded(tmp_path):
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.is_asked(tmp_path)
            said = capfd.readouterr().err
            assert said.startswith("stopping with a checkpoint; Ctrl-C again ends at once. To go on: ")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


def test_a_ctrl_c_that_comes_with_a_sigterm_asks_too(tmp_path: Path, capfd) -> None:
    """Whichever is heard first: where a terminal and whatever watches over it both end a command."""
    with asked.listening(), asked.heeded(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_asked(tmp_path)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pytest.fail("it ended the run")
        assert capfd.readouterr().err.startswith("stopping with a checkpoint; ")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
