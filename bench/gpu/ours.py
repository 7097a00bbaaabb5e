"""Our step, as a worker makes it: `cluster.worker.train_step` on `cluster.engine.Engine`, features in device memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from bench.gpu.synthetic import Batch, Network, cut
from cluster.batches import StepBatch
from cluster.config import ClusterConfig, task_micro_batch_size
from cluster.engine import Engine, StepResult
from cluster.ranks import Ranks
from cluster.schedule import learning_rate
from cluster.worker import train_step

COMPILES = "compile" in ClusterConfig.__dataclass_fields__  # whether the engine can compile the model


@contextmanager
def one_rank(device: str) -> Iterator[None]:
    """The process group of this process alone: NCCL on a GPU, gloo on CPUs; no connection is made."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ["DS_ACCELERATOR"] = device  # else DeepSpeed takes a GPU wherever it sees one
    backend, limit = "nccl" if device == "cuda" else "gloo", timedelta(seconds=120)
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Ours:
    """A network that is trained a step at a time, in the process group of `one_rank`."""

    def __init__(
        self, network: Network, device: str, precision: str, zero_stage: int = 1, compiled: bool = False, seed: int = 0
    ) -> None:
        self._network, self._device = network, torch.device(device, 0) if device == "cuda" else torch.device(device)
        options = {"compile": True} if compiled else {}
        cluster = ClusterConfig(workers=1, precision=precision, zero_stage=zero_stage, **options)
        self._engine = Engine(network.build(seed), network.stages["mlm"], cluster, self._device)
        self._ranks = Ranks(120)
        self._steps = 0

    @property
    def model(self) -> torch.nn.Module:
        return self._engine.model

    def step(self, batch: Batch, table: Tensor) -> tuple[dict[str, float], StepResult]:
        """One optimiser step: losses by name, and what the step did. table: features on the device, float16."""
        stage = self._network.stages[batch.task]
        size = task_micro_batch_size(stage, batch.task, 1)
        whole = on_device(self._network, batch, table)
        micro = [
            {name: value[start : start + size] for name, value in whole.items()}
            for start in range(0, len(batch.rows), size)
        ]
        lr = learning_rate(stage, self._steps)
        self._steps += 1
        return train_step(
            self._engine, StepBatch(batch.task, micro, len(batch.rows)), stage, lr, self._device, self._ranks
        )

    def close(self) -> None:
        self._engine.close()


def on_device(network: Network, batch: Batch, table: Tensor) -> dict[str, Tensor]:
    """A batch for the model: rows of the table, captions cut where the model masks padding; all on the device."""
    text = cut(batch.text, network.model.pad) if network.model.mask_padding else batch.text
    found = {name: value.to(table.device, non_blocking=True) for name, value in text.items()}
    before, after = batch.rows.to(table.device, non_blocking=True).unbind(dim=1)
    if batch.task == "class_labels":
        return found | {"photo": table[before].float()}
    return found | {"before": table[before].float(), "after": table[after].float()}
