"""A Slurm of two nodes for all tests of this folder, and users who have the data of the recipe `tiny`."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testing.machines.slurm_cluster import Slurm, slurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[Slurm]:
    with slurm(count=2, cpus=2, memory_mib=8000) as running:
        yield running


@pytest.fixture
def with_data(cluster: Slurm, tiny_data: Path) -> Callable[[str], Path]:
    """Puts the data into a user's IDC_HOME, which is returned."""

    def give(user: str) -> Path:
        home, account = cluster.home(user) / "idc", pwd.getpwnam(user)
        if not (home / "data").exists():
            shutil.copytree(tiny_data, home / "data")
            for folder, _, files in os.walk(home):
                for path in (folder, *(os.path.join(folder, file) for file in files)):
                    os.chown(path, account.pw_uid, account.pw_gid)
        return home

    return give
