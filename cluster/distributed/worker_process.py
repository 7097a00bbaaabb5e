"""The process of a worker: Ray Train's actor, with what it needs imported quickly."""

from __future__ import annotations

from cluster.distributed.imports import quickly

with quickly():
    import ray.train.torch  # noqa: F401
    import torch  # noqa: F401
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker as Theirs


class RayTrainWorker(Theirs):
    """Ray Train's; Ray imports this module when it makes one."""
