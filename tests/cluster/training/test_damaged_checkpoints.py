"""A full disk, and checkpoints that are half-written or damaged: named, and the one before is taken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testing.checkpoints import commit
from testing.multirank import run_ranks

from cluster.training import checkpoint
from cluster.training.checkpoint import COMMIT, DAMAGED, WEIGHTS, Commit

ROOT = Path(__file__).resolve().parents[3]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")  # mounts that nobody else sees
SMALL = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$1"'


def fill_and_save(folder: Path) -> dict[str, Any]:
    """One good checkpoint; others for which 0 to 90 % of the room is there; then one more with the room back."""
    from testing.engines import make_engine

    from cluster.distributed.ranks import Ranks
    from cluster.errors import NoSpaceError
    from cluster.training import checkpoint
    from cluster.training.checkpoint import Commit

    ranks, stage_folder, filler = Ranks(60), folder / "checkpoints" / "finetune", folder / "filler"
    engine, _ = make_engine(0)

    def save(step: int) -> None:
        checkpoint.save(stage_folder, engine, Commit("finetune", step, 1, 0), 0, ranks.barrier, keep=9)

    save(1)
    size = sum(checkpoint.latest(stage_folder).commit.files.values())
    said = []
    for share in (0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9):
        room = os.statvfs(folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(room.f_bavail * room.f_frsize - share * size) or 1)
        try:
            save(2)
            said.append("saved")
        except NoSpaceError as error:
            said.append(str(error))
        filler.unlink()
    left = sorted(path.name for path in stage_folder.iterdir())
    save(2)
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
    """Checkpoints of steps 1 to 4."""
    from testing.engines import make_engine

    from cluster.distributed.ranks import Ranks

    ranks = Ranks(60)
    engine, _ = make_engine(1)
    for step in (1, 2, 3, 4):
        made = Commit("finetune", step, ranks.world, 1)
        checkpoint.save(folder, engine, made, ranks.rank, ranks.barrier, keep=9)
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
    run_ranks(2, saved, tmp_path)
    one, two, three, four = sorted(tmp_path.iterdir())
    assert checkpoint.left_out(tmp_path) == []

    (four / WEIGHTS).write_bytes((four / WEIGHTS).read_bytes()[:-100])
    assert "step_00000004 is left out: weights.safetensors has" in checkpoint.left_out(tmp_path)[0]
    (four / COMMIT).unlink()
    assert checkpoint.left_out(tmp_path) == [f"{four} is left out: it was not written to its end"]
    assert checkpoint.latest(tmp_path).folder == three

    states = sorted(three.glob("engine/*optim_states.pt"))
    assert len(states) == 2
    flip(states[1])
    (step, said), (same, silent) = run_ranks(2, taken, tmp_path)
    assert step == same == 2 and silent == []
    assert len(said) == 1 and f"{three} is left out: engine/{states[1].name} is damaged" in said[0]
    assert (three / DAMAGED).is_file() and checkpoint.latest(tmp_path).folder == two

    for path in two.glob("engine/*"):
        path.unlink()
    assert " is left out: engine/mp_rank_00_model_states.pt is missing" in checkpoint.left_out(tmp_path)[0]
    assert checkpoint.latest(tmp_path).folder == one


@pytest.mark.ranks
def test_of_a_checkpoint_with_nothing_but_its_commit_nothing_is_taken(tmp_path: Path) -> None:
    """As an earlier version wrote it: without a list of its files."""
    alone: Any = commit(tmp_path, 7)
    (step, said), *_ = run_ranks(2, taken, tmp_path)
    assert step is None and said == [f"{alone} is left out: it has no files of DeepSpeed's"]


if __name__ == "__main__":  # on a small disk of its own, for the first test
    print(json.dumps(run_ranks(1, fill_and_save, Path(sys.argv[1]))[0]))
