"""What trains: the options resolved on nodes as Ray lists them, and what a worker's process keeps to."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from testing.refusal import refused

from cluster.config.fields import ClusterConfig
from cluster.distributed.devices import Placement, expected_here, place, require_room, resolved
from cluster.recipes.registry import RECIPES

ROOT = Path(__file__).resolve().parents[3]
EIGHT = {"CPU": 64.0, "GPU": 8.0}


def nodes(*resources: dict[str, float]) -> list[dict]:
    """Nodes as `ray.nodes()` lists them, and one that has died."""
    found = [{"Alive": True, "NodeManagerHostname": f"n{i}", "Resources": one} for i, one in enumerate(resources)]
    return [*found, {"Alive": False, "NodeManagerHostname": "dead", "Resources": {"CPU": 99.0, "GPU": 99.0}}]


def chosen(there: list[dict], **options) -> Placement:
    found = place(ClusterConfig(**options), there)
    require_room(found, there)
    return found


@pytest.mark.parametrize(
    ("there", "options", "numbers", "said"),
    [
        ([{"CPU": 2}], {}, (2, 0, "gloo", "fp32"), "2 CPU workers, fp32"),
        ([{"CPU": 2, "GPU": 2}], {}, (2, 1, "nccl", "bf16"), "2 GPUs, bf16"),
        ([EIGHT, EIGHT], {}, (16, 1, "nccl", "bf16"), "16 GPUs, bf16"),
        ([EIGHT], {"workers": 4}, (4, 1, "nccl", "bf16"), "4 GPUs, bf16"),
        ([EIGHT], {"gpus_per_worker": 0}, (2, 0, "gloo", "fp32"), "2 CPU workers, fp32"),
        ([EIGHT], {"gpus_per_worker": 0, "precision": "bf16"}, (2, 0, "gloo", "bf16"), "2 CPU workers, bf16"),
        ([EIGHT], {"precision": "fp32"}, (8, 1, "nccl", "fp32"), "8 GPUs, fp32"),
        ([{"CPU": 4, "GPU": 1}], {}, (1, 1, "nccl", "bf16"), "1 GPU, bf16"),
        ([{"CPU": 4, "GPU": 1}], {"gpus_per_worker": 0.5}, (2, 0.5, "gloo", "bf16"), "1 GPU shared by 2 workers, bf16"),
        ([{"CPU": 1}], {"workers": 1}, (1, 0, "gloo", "fp32"), "1 CPU worker, fp32"),
        ([{"CPU": 16}, EIGHT], {}, (8, 1, "nccl", "bf16"), "8 GPUs, bf16"),  # a head without GPUs
    ],
)
def test_the_options_come_to_numbers(there: list, options: dict, numbers: tuple, said: str) -> None:
    found = chosen(nodes(*there), **options)
    assert (found.workers, found.gpus_per_worker, found.backend, found.precision) == numbers
    assert str(found) == said
    tiny = RECIPES["tiny"]()
    told = resolved(dataclasses.replace(tiny, cluster=ClusterConfig(**options)), found).cluster
    assert (told.workers, told.gpus_per_worker, told.precision) == (*numbers[:2], numbers[3])


@pytest.mark.parametrize(
    ("there", "options", "said"),
    [
        # The sums over both nodes are enough, no node is: Ray itself waits for ever.
        (
            [{"CPU": 3}, {"CPU": 3}],
            {"workers": 3, "cpus_per_worker": 2.0},
            "room for 2 (n0 with 3 CPUs for 1, n1 with 3 CPUs for 1): give --cluster.workers 2 or a lower",
        ),
        ([{"CPU": 1}], {}, "--cluster.workers 2, each with 1 CPUs, find no room"),
        ([{"CPU": 1}], {"cpus_per_worker": 4.0, "workers": 1}, "give a lower --cluster.cpus_per_worker"),
        ([{"CPU": 8}], {"gpus_per_worker": 1}, "--cluster.gpus_per_worker 1 and the Ray cluster has no GPU"),
        ([{"CPU": 8}], {"gpus_per_worker": 0.5}, "--cluster.gpus_per_worker 0.5 and the Ray cluster has no GPU"),
        ([{"CPU": 8, "GPU": 2}], {"workers": 3}, "n0 with 8 CPUs and 2 GPUs for 2"),
        ([{"CPU": 8, "GPU": 2}], {"workers": 3}, "--cluster.workers 2 or"),
        ([{"CPU": 8, "GPU": 2}], {"workers": 3}, "--cluster.gpus_per_worker 0 for CPUs"),
        ([{"CPU": 4, "GPU": 8}], {}, "a lower --cluster.cpus_per_worker where CPUs are short"),
        ([{"CPU": 1}] * 9, {"workers": 10}, "n3 with 1 CPUs for 1, 5 more)"),
    ],
)
def test_too_little_room_is_said_node_by_node(there: list, options: dict, said: str) -> None:
    with refused(said):
        chosen(nodes(*there), **options)


def test_room_of_a_fraction_is_not_lost_to_rounding() -> None:
    assert chosen(nodes({"CPU": 1}), workers=10, cpus_per_worker=0.1).workers == 10
    assert chosen(nodes({"CPU": 8, "GPU": 4}), gpus_per_worker=0.5).workers == 8


@pytest.mark.slow
def test_what_is_expected_of_this_machine_is_looked_at_before_data_are_made() -> None:
    """The command ends before it packs: there is no GPU to train on."""
    assert expected_here(ClusterConfig(gpus_per_worker=0)).workers == 2
    command = [sys.executable, "cluster/train.py", "tiny", "--root", "/nowhere", "--cluster.gpus_per_worker", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "--cluster.gpus_per_worker 1 and the Ray cluster has no GPU" in done.stderr


WORKER = """
import os, sys, torch
from cluster.distributed.devices import choose_accelerator
choose_accelerator(torch.device(sys.argv[1]), sys.argv[2])
from deepspeed.accelerator import get_accelerator
print(get_accelerator()._name, repr(os.environ.get("CUDA_VISIBLE_DEVICES")), torch.get_float32_matmul_precision())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cpu", "bf16", "cpu '' highest"),
        ("cuda", "bf16", "cuda '3' high"),
        ("cuda", "fp32", "cuda '3' highest"),
    ],
)
def test_deepspeed_keeps_to_the_device_of_the_worker(device: str, precision: str, said: str) -> None:
    """Whatever the machine has, and whatever the environment says."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3", "DS_ACCELERATOR": {"cpu": "cuda", "cuda": "cpu"}[device]}
    command = [sys.executable, "-W", "ignore", "-c", WORKER, device, precision]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == [said], done.stderr


def test_a_worker_process_on_cpus_is_started_without_gpus() -> None:
    on_cpus, on_gpus = chosen(nodes(EIGHT), gpus_per_worker=0), chosen(nodes(EIGHT))
    assert on_cpus.environment == {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    assert on_gpus.environment == {"DS_ACCELERATOR": "cuda"}
    assert on_gpus.resources == {"CPU": 1.0, "GPU": 1} and on_cpus.resources == {"CPU": 1.0}
