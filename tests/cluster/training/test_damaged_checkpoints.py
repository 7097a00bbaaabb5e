"""A full disk, and checkpoints that are half-written or damaged: named, and the one before is taken."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from testing.models.checkpoints import commit
from testing.multirank import RankDied, run_ranks

from cluster.training import checkpoint
from cluster.training.checkpoint import COMMIT, DAMAGED, PARTIAL, WEIGHTS
from shards.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")  # mounts that nobody else sees
SMALL = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$1"'


def fill_and_save(folder: Path) -> dict[str, Any]:
    """One good checkpoint; others for which 0 to 90 % of the room is there; then one more with the room back."""
    from testing.models.engines import make_engine, save, train

    from cluster.distributed.ranks import Ranks
    from cluster.errors import NoSpaceError
    from cluster.training import checkpoint

    ranks, stage_folder, filler = Ranks(60), folder / "checkpoints" / "finetune", folder / "filler"
    engine, stage = make_engine(0)
    train(engine, stage, range(1))
    size = save(engine, ranks, stage_folder, 1, stage="finetune").size
    said = []
    for share in (0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9):
        room = os.statvfs(folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(room.f_bavail * room.f_frsize - share * size) or 1)
        try:
            save(engine, ranks, stage_folder, 2, stage="finetune")
            said.append("saved")
        except NoSpaceError as error:
            said.append(str(error))
        filler.unlink()
    left = sorted(path.name for path in stage_folder.iterdir())
    save(engine, ranks, stage_folder, 2, stage="finetune")
    kept = [found.commit.step for found in checkpoint.find(stage_folder)]
    engine.close()
    return {"said": said, "left": left, "kept": kept}


@pytest.mark.ranks
def test_a_full_disk_is_named_with_what_to_free_and_costs_no_checkpoint(tmp_path: Path) -> None:
    """On a tmpfs of 4 MiB: torch's writer, safetensors and Python's own files fail each in their way."""
    if subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    done = subprocess.run(
        [*ALONE, "bash", "-c", SMALL, "small", tmp_path, sys.executable, __file__],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for said in found["said"]:
        assert said.startswith("no space left on device: ") and "\n" not in said
        assert " MiB (a checkpoint takes " in said and "or lower --finetune.keep" in said
        assert said.endswith("the same command then goes on from step 1")
    assert found["left"] == ["step_00000001"], "what was half-written takes no room"
    assert found["kept"] == [1, 2]


def saved(folder: Path) -> None:
    """Checkpoints of steps 1 to 6."""
    from testing.models.engines import make_engine, save, train

    from cluster.distributed.ranks import Ranks

    ranks = Ranks(60)
    engine, stage = make_engine(1)
    for step in (1, 2, 3, 4, 5, 6):
        train(engine, stage, [step])
        save(engine, ranks, folder, step)
    engine.close()


def taken(folder: Path) -> tuple[int | None, list[str]]:
    """The step that training goes on from, and what is said."""
    from cluster.distributed.ranks import Ranks

    ranks, said = Ranks(60), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("cluster").addHandler(handler)
    newest = checkpoint.newest_readable(folder, ranks)
    return newest and newest.commit.step, said


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.ranks
def test_the_checkpoint_before_is_taken(tmp_path: Path) -> None:
    """A byte flipped in each kind of file; a file cut short, or gone; a folder that was not written to its end."""
    run_ranks(2, saved, tmp_path)
    one, two, three, four, five, six = sorted(tmp_path.iterdir())
    assert checkpoint.left_out(tmp_path) == []

    (six / WEIGHTS).write_bytes((six / WEIGHTS).read_bytes()[:-100])
    assert "step_00000006 is left out: weights.safetensors has" in checkpoint.left_out(tmp_path)[0]
    half = six.rename(six.with_name(six.name + PARTIAL))
    assert checkpoint.left_out(tmp_path) == [f"{half} is left out: it was not written to its end"]
    assert checkpoint.latest(tmp_path).folder == five

    flip(five / COMMIT)
    assert checkpoint.left_out(tmp_path)[0] == f"{five} is left out: it was not written to its end"
    assert checkpoint.latest(tmp_path).folder == four

    states = sorted(four.glob("optimizer-*.safetensors"))
    assert len(states) == 2
    flip(states[1])
    flip(three / WEIGHTS)
    with pytest.raises(DataError, match=f"{three / WEIGHTS} is damaged: its checksum"):
        checkpoint.load_weights(three / WEIGHTS)
    (step, said), (same, silent) = run_ranks(2, taken, tmp_path)
    assert step == same == 2 and silent == []
    assert [line.partition(": its checksum")[0] for line in said] == [
        f"{four} is left out: {states[1].name} is damaged", f"{three} is left out: {WEIGHTS} is damaged",
    ]  # fmt: skip
    assert (four / DAMAGED).is_file() and checkpoint.latest(tmp_path).folder == two

    (two / states[0].name).unlink()
    assert f" is left out: {states[0].name} is missing" in checkpoint.left_out(tmp_path)[0]
    assert checkpoint.latest(tmp_path).folder == one


def until_killed(folder: Path, steps: int, moment: float | None) -> bytes:
    """Trains on from the newest checkpoint with one after each step; kill -9 `moment` seconds after the second.

    The last weights' bytes, if it is not killed.
    """
    from testing.models.engines import make_engine, train

    from cluster.distributed.ranks import Ranks
    from cluster.training.checkpoint import Commit
    from cluster.training.saving import Saver

    ranks = Ranks(60)
    found = checkpoint.newest_readable(folder, ranks)
    engine, stage = make_engine(1, found=found)
    saver, first = Saver(folder, ranks, 60, 2), found.commit.step if found else 0
    for step in range(first, steps):
        train(engine, stage, [step])
        saver.save(engine, Commit("finetune", step + 1, ranks.world, 1))
        if moment is not None and step == first + 1:
            threading.Timer(moment, os.kill, (os.getpid(), signal.SIGKILL)).start()
    saver.finish()
    engine.close()
    return checkpoint.latest(folder).weights.read_bytes()


@pytest.mark.ranks
def test_killed_at_any_moment_of_its_writing_the_curve_goes_on(tmp_path: Path) -> None:
    moments, steps, reached = random.Random(5), 60, 0
    for _ in range(5):
        with pytest.raises(RankDied):
            run_ranks(2, until_killed, tmp_path / "killed", steps, moments.uniform(0.0, 0.1))
        there = checkpoint.find(tmp_path / "killed")
        assert there and not any(checkpoint.damage(one) for one in there)
        assert there[-1].commit.step > reached or reached == 0
        reached = there[-1].commit.step
    assert reached < steps, "killed too late to say anything"
    ends = [run_ranks(2, until_killed, tmp_path / name, steps, None)[0] for name in ("killed", "undisturbed")]
    assert ends[0] == ends[1]
    assert len(list((tmp_path / "killed").iterdir())) == 2, "nothing half-written is left"


@pytest.mark.ranks
def test_of_a_checkpoint_with_nothing_but_its_commit_nothing_is_taken(tmp_path: Path) -> None:
    """As an earlier version wrote it: without a list of its files."""
    alone: Any = commit(tmp_path, 7)
    (step, said), *_ = run_ranks(2, taken, tmp_path)
    assert step is None and said == [f"{alone} is left out: its COMMIT says nothing of its files"]


if __name__ == "__main__":  # on a small disk of its own, for the first test
    print(json.dumps(run_ranks(1, fill_and_save, Path(sys.argv[1]))[0]))
