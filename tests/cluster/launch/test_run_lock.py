"""One driver at a time in a run folder: real processes, one of them killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import ConfigError, TrainingError
from cluster.launch import run_lock
from cluster.launch.run_lock import FILE, held

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60
HOLDER = """
import sys, time
from pathlib import Path
from cluster.launch.run_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """A process that holds the lock of a run folder."""
    run = tmp_path / "runs" / "tiny"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield run, process
    finally:
        process.kill()
        process.wait(LIMIT_S)


def train(run: Path, *more: str) -> subprocess.CompletedProcess:
    options = ["--root", str(run.parents[1]), "--data.source", "none", *more]
    command = [sys.executable, "cluster/train.py", "tiny", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["all", "evaluate"])
def test_a_second_driver_is_refused_at_once_and_told_who_holds_the_folder(holder: tuple, stage: str) -> None:
    run, process = holder
    second = train(run, "--stage", stage)
    assert second.returncode == 2
    said = second.stderr.splitlines()
    assert len(said) == 1 and f"process {process.pid}, since 20" in said[0] and f"{run} is in use by" in said[0]
    assert json.loads((run / FILE).read_text())["pid"] == process.pid


@pytest.mark.slow
def test_the_folder_of_a_killed_driver_is_taken_over(holder: tuple) -> None:
    run, process = holder
    process.kill()
    process.wait(LIMIT_S)
    second = train(run)
    assert second.returncode == 2 and "no such folder" in second.stderr, "it went on to the next thing that is wrong"
    assert f"process {process.pid}" in second.stderr and "which has ended" in second.stderr
    assert "waiting" not in second.stderr, "that it has ended is known at once"
    assert not run.exists(), "nothing came into it"


def test_a_killed_driver_that_nobody_has_noticed_yet_is_dead(holder: tuple) -> None:
    run, process = holder
    process.kill()
    while run_lock._started(process.pid):  # from now on it is a zombie
        time.sleep(0.01)
    with held(run):
        assert json.loads((run / FILE).read_text())["pid"] == os.getpid()


def elsewhere(run: Path) -> Path:
    """A lock of another machine, renewed a moment ago."""
    with held(run):
        owner = json.loads((run / FILE).read_text()) | {"host": "node7", "machine": "another boot", "pid": 1}
    run.mkdir(parents=True)
    (run / FILE).write_text(json.dumps(owner))
    return run / FILE


def test_a_driver_of_another_machine_holds_the_folder_as_long_as_it_gives_signs(tmp_path: Path, monkeypatch) -> None:
    path = elsewhere(tmp_path / "run")
    monkeypatch.setattr(run_lock, "say", lambda text: os.utime(path))  # its sign, once we wait
    with pytest.raises(ConfigError, match="in use by .* on node7, process 1"), held(tmp_path / "run"):
        pytest.fail("held twice")
    assert path.is_file()


def test_a_driver_of_another_machine_that_gives_no_sign_is_replaced(tmp_path: Path, monkeypatch, capsys) -> None:
    path = elsewhere(tmp_path / "run")
    monkeypatch.setattr(run_lock, "STALE_S", 1.0)
    begun = time.monotonic()
    with held(tmp_path / "run"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert 0.5 < time.monotonic() - begun < 20
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), held(tmp_path / "run"):
            pytest.fail("held twice")
    said = capsys.readouterr().err
    assert "node7" in said and "waiting up to 1 s for its sign" in said and "nothing was heard for 1 s" in said
    assert not (tmp_path / "run").exists()


def test_of_many_that_find_a_dead_driver_one_takes_over(holder: tuple) -> None:
    run, process = holder
    process.kill()
    process.wait(LIMIT_S)
    command, pipe = [sys.executable, "-c", HOLDER, str(run)], subprocess.PIPE
    several = [subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) for _ in range(6)]
    try:
        deadline = time.monotonic() + LIMIT_S
        while sum(one.poll() is None for one in several) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (winner,) = [one for one in several if one.poll() is None]
        assert winner.stdout is not None and winner.stdout.readline() == "held\n"
        for one in several:
            if one is not winner:
                said = one.communicate(timeout=LIMIT_S)[1]
                assert "is in use by" in said, said
    finally:
        for one in several:
            one.kill()
            one.communicate(timeout=LIMIT_S)


def test_the_lock_is_renewed_and_who_lost_it_ends(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="was taken over by .* on node7"), held(run):
        path = run / FILE
        os.utime(path, (1, 1))
        deadline = time.monotonic() + LIMIT_S
        while path.stat().st_mtime < 10:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "node7"}))
        time.sleep(LIMIT_S)
    assert json.loads((run / FILE).read_text())["host"] == "node7", "it is another's now"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written .* --root"), held(tmp_path / "file" / "run"):
        pytest.fail("held nothing")
