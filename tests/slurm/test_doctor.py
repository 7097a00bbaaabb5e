"""slurm/doctor.sh on a real Slurm: every node of the allocation is looked at, and held against what was allocated."""

from __future__ import annotations

import pytest
from testing.machines.slurm_cluster import Slurm

USER = "daemon"


@pytest.mark.slurm
def test_every_node_of_an_allocation_is_looked_at(cluster: Slurm) -> None:
    home = cluster.home(USER)
    job = cluster.submit(USER, "--nodes=2", "slurm/doctor.sh", "--root", str(home))
    ended = cluster.wait(job)
    said = cluster.output(USER, job)
    assert ended["ExitCode"] == "0:0", said
    assert "the sum over 2 ranks is right, 2 nodes" in said and "the files of 2 nodes are read back" in said
    assert f"slurm       job {job}" in said and "MISS  " not in said
    assert cluster.left_behind(USER) == [] and not list(home.glob(".doctor-*"))
