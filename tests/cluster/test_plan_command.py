"""`python -m cluster.plan`: what it prints, what it does not know, and what it refuses."""

from __future__ import annotations

import pytest

from cluster import plan
from cluster.errors import ConfigError
from shards.errors import DataError

SIZES = ("--vocabulary", "300", "--classes", "12")
ONE = ("tiny", "--stage", "finetune", *SIZES)


@pytest.mark.slow
def test_a_plan_for_gpus_from_a_given_speed(capsys, tmp_path) -> None:
    root = ("--root", str(tmp_path))
    given = (*ONE, *root, "--nodes", "2", "--gpus-per-node", "4", "--cluster.zero_stage", "2")
    assert plan.main([*given, "--samples-per-second", "40"]) == 0
    said = capsys.readouterr().out
    assert "8 GPUs, bf16, ZeRO 2, 2 nodes" in said
    lines = {words[0]: words for line in said.splitlines() if (words := line.split())}
    assert lines["finetune"][1:4] == ["10", "80", "0.200"] and lines["together"][1] == "0.00"
    assert "time: 40 samples a second, as given" in said
    assert plan.main([*ONE, *root, "--gpus-per-node", "0", "--calibrate", "0"]) == 0
    said = capsys.readouterr().out
    assert "2 CPU workers, fp32, ZeRO 1" in said
    assert "the time of finetune is unknown: nothing was measured (--calibrate 0); give --samples-per-second" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sharded_optimiser_takes_less(tmp_path) -> None:
    from cluster.distributed.devices import Placement
    from cluster.planning.memory import of_worker
    from cluster.planning.sizes import with_planned_sizes
    from cluster.recipes.commandline import parse

    config = with_planned_sizes(parse(["tiny"]).config, tmp_path, 300, 12)
    parts = {zero: of_worker(config, config.finetune, Placement(8, 1, 0, "fp32"), zero) for zero in (0, 1, 2, 3)}
    assert parts[1].optimiser < parts[0].optimiser and parts[1].gradients == parts[0].gradients
    assert parts[2].gradients * 8 <= parts[1].gradients < parts[2].gradients * 8 + 8
    assert all(part.task == "finetune" and part.peak > part.activations > 0 for part in parts.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny",), "--gpus-per-node is missing"),
        (("tiny", "--gpus-per-node", "many"), "--gpus-per-node 'many' must be a whole number, 0 or more"),
        (("tiny", "--gpus-per-node", "0", "--nodes", "0"), "--nodes '0' must be a whole number, 1 or more"),
        (("tiny", "--gpus-per-node", "0", "--samples-per-second", "0"), "--samples-per-second '0' must be a number"),
        (("tiny", "--gpus-per-node", "0", "--finetune.lrr", "1"), "did you mean --finetune.lr?"),
        (("tiny", "--gpus-per-node", "0"), "--vocabulary is not known, data/tiny is not packed"),
        (("pairs", "--gpus-per-node", "0", "--data.words", "0", *SIZES[:2]), "--classes is not known"),
        (("tiny", "--gpus-per-node", "2", "--cluster.workers", "4", *SIZES), "has room for 2"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments: tuple[str, ...], message: str, tmp_path) -> None:
    with pytest.raises((ConfigError, DataError)) as refused:
        plan.main([*arguments, "--root", str(tmp_path)])
    assert message in str(refused.value) and "\n" not in str(refused.value)
