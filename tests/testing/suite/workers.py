"""How `make test` deals the tests out to its workers: a file stays on one, so module fixtures are made once.

Files that share what is dear to start stay on one, too. What takes longest comes first: begun last, it would keep one
worker busy while the other has nothing to do.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

FIRST = (  # each line goes to one worker
    ("tests/slurm/",),
    ("tests/tune/test_sweep.py",),
    ("tests/cluster/test_train.py",),
    ("tests/cluster/launch/test_launch.py", "tests/cluster/launch/test_restarts.py",
     "tests/cluster/launch/test_watch.py", "tests/shards/packing/test_ray_tasks.py"),  # they share a Ray head
    ("tests/cluster/launch/test_ray_job.py",),
    ("tests/cluster/test_seeds.py",),
    ("tests/cluster/launch/test_elastic.py",),
    ("tests/cluster/training/test_resize.py",),
    ("tests/cluster/training/test_any_workers.py",),
    ("tests/cluster/test_real_photos.py",),
    ("tests/cluster/tracking/test_speed.py",),
    ("tests/bench/test_ablation.py",),
    ("tests/bench/test_gpu.py",),
)  # fmt: skip


def place(test: str) -> int:
    """The line of FIRST that a test, by its node id, is in; or one after all of them."""
    found = (number for number, files in enumerate(FIRST) if test.startswith(files))
    return next(found, len(FIRST))


class ByFile(LoadScopeScheduling):
    """Gives a worker that has nothing left the next file, or the next line of FIRST."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # our order, not that of how many tests a file has
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        line = place(nodeid)
        return FIRST[line][0] if line < len(FIRST) else nodeid.partition("::")[0]
