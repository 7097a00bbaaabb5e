"""What is looked at on one machine: packages against their ranges, and the ports that the Slurm scripts take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.checks import machine, packages, slurm
from cluster.checks.finding import MISS, OK, WARN, line, merged, miss, ok

ROOT = Path(__file__).resolve().parents[3]
PROJECT = """
[project]
requires-python = ">=3.11"
dependencies = ["numpy>=2,<3", "torch<2"]
[project.optional-dependencies]
train = ["no-such-package==1.0", "ray[train]>=2"]
"""


def test_what_is_installed_here_is_in_its_ranges() -> None:
    (found,) = packages.look({})
    assert found.level == OK and {"python", "torch", "ray", "deepspeed"} <= found.facts["versions"].keys()


def test_a_package_that_is_missing_or_of_another_version_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.setattr(packages, "CODE", tmp_path)
    old, absent = packages.look({})
    assert old.level == absent.level == MISS
    assert "torch" in old.found and "<2 is needed" in old.found and old.fix == "pip install 'torch<2'"
    assert absent.found == "no-such-package is not installed" and "no-such-package==1.0" in absent.fix


def test_an_installed_package_names_its_own_ranges(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(packages, "CODE", tmp_path)  # no pyproject.toml there
    python, requirements = packages.needed()
    ranges = {one.name: str(one.specifier) for one in requirements}
    assert "3.11" in python and {"torch", "deepspeed", "ray", "numpy"} <= ranges.keys() and ranges["torch"]
    assert not {"pytest", "s3fs", "gcsfs"} & ranges.keys()  # of other extras


def test_ports_are_those_of_the_slurm_scripts() -> None:
    job = 4321
    first = machine.free_block(job)
    environment = os.environ | {"SLURM_JOB_ID": str(job), "IDC_PYTHON": sys.executable}
    script = f". {ROOT}/slurm/lib.sh && free_ports"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(first), done.stderr
    with socket.socket() as taken:
        taken.bind(("", first + 3))
        assert machine.free_block(job) != first


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "100"}, OK),
        ({"SLURM_CPUS_ON_NODE": "100000"}, WARN),
        ({"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_CPU": str(10**9)}, WARN),
    ],
)
def test_an_allocation_is_held_against_the_machine(variables: dict[str, str], level: str, monkeypatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    assert slurm.look({}) == []
    for name, value in ({"SLURM_JOB_ID": "7"} | variables).items():
        monkeypatch.setenv(name, value)
    (found,) = slurm.look({})
    assert found.level == level and "job 7" in found.found


def test_equal_findings_of_nodes_are_one_line() -> None:
    import dataclasses

    found = [dataclasses.replace(one, node=f"n{number}") for number in range(5) for one in
             (ok("code", "same"), miss("disk", "full", "free some") if number else ok("disk", "free"))]  # fmt: skip
    entries = merged(found)
    assert [line(entry, 5) for entry in entries] == [
        "OK    code        same",
        "OK    disk        n0: free",
        "MISS  disk        n1, n2, n3, 1 more: full; free some",
    ]
