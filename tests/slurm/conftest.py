"""A Slurm of two nodes for all tests of this folder, and the data of the recipe `tiny`, made once."""

from __future__ import annotations

import dataclasses
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testing.slurm_cluster import Slurm, slurm

from cluster.prepare import prepare
from cluster.recipes.registry import RECIPES


@pytest.fixture(scope="session")
def cluster() -> Iterator[Slurm]:
    with slurm(count=2, cpus=2, memory_mib=8000) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ of the recipe `tiny`."""
    root = tmp_path_factory.mktemp("tiny")
    prepare(dataclasses.replace(RECIPES["tiny"](), root=str(root)), root)
    return root / "data"


@pytest.fixture
def with_data(cluster: Slurm, tiny_data: Path) -> Callable[[str], Path]:
    """Puts the data into a user's IDC_HOME, which is returned."""

    def give(user: str) -> Path:
        home, account = cluster.home(user) / "idc", pwd.getpwnam(user)
        if not home.exists():
            shutil.copytree(tiny_data, home / "data")
            for folder, _, files in os.walk(home):
                for path in (folder, *(os.path.join(folder, file) for file in files)):
                    os.chown(path, account.pw_uid, account.pw_gid)
        return home

    return give
