"""How many trials run at once: what the nodes have room for, worker by worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from tune.commandline import parse
from tune.sweep import GRAIN, HEAD, slots_of

GIB = 2**30


def nodes(*resources: dict[str, float]) -> list[dict]:
    found = [{"Alive": True, "Resources": {"memory": 64 * GIB, **one}} for one in resources]
    found[0]["Resources"][HEAD] = 1.0
    return found


@pytest.mark.parametrize(
    ("there", "options", "slots"),
    [
        ([{"CPU": 2}], [], 2),
        ([{"CPU": 2}], ["--cluster.workers", "2"], 1),
        ([{"CPU": 2}], ["--cluster.cpus_per_worker", "0.5"], 4),
        ([{"CPU": 3}, {"CPU": 3}], ["--cluster.cpus_per_worker", "2"], 2),  # a third of each node stays idle
        ([{"CPU": 8, "memory": 3.5 * GIB}], [], 3),
        ([{"CPU": 64, "GPU": 8}] * 2, ["--cluster.gpus_per_worker", "1"], 16),
        ([{"CPU": 64, "GPU": 8}] * 2, ["--cluster.gpus_per_worker", "1", "--cluster.workers", "4"], 4),
        ([{"CPU": 4, "GPU": 8}], ["--cluster.gpus_per_worker", "1"], 4),
        ([{"CPU": 16}, {"CPU": 64, "GPU": 8}], ["--cluster.gpus_per_worker", "1"], 8),
    ],
)
def test_trials_at_once(tmp_path: Path, there: list[dict], options: list[str], slots: int) -> None:
    plan = parse(["tiny", "--root", str(tmp_path), *options]).plan
    assert slots_of(nodes(*there), plan) == slots
    dead = [*nodes(*there), {"Alive": False, "Resources": {"CPU": 99}}]
    assert slots_of(dead, plan) == slots


@pytest.mark.parametrize("there", [[{"CPU": 1}, {"CPU": 1}], [{"CPU": 4, "memory": GIB / 2}]])
def test_no_room_is_said(tmp_path: Path, there: list[dict]) -> None:
    plan = parse(["tiny", "--root", str(tmp_path), "--cluster.cpus_per_worker", "2"]).plan
    with pytest.raises(ConfigError, match="no room for a trial"):
        slots_of(nodes(*there), plan)


def test_exactly_so_many_actors_find_room_on_the_first_node() -> None:
    for slots in (1, 2, 3, 7, 16, 64):
        share = GRAIN // slots
        assert slots * share <= GRAIN < (slots + 1) * share
