"""Our step, as a worker makes it: `train_step` on an `Engine` (cluster.training), features in device memory."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bench.gpu.parts.synthetic import Batch, Network, cut
from cluster.batches.batches import StepBatch
from cluster.batches.resident import ROWS
from cluster.batches.schedule import learning_rate
from cluster.config.fields import ClusterConfig, task_micro_batches
from cluster.config.tasks import compares_samples
from cluster.training.engine import Engine
from cluster.training.step import Measured, read, rounding, train_step
from idc.losses.objectives import prepare


class Ours:
    """A network that is trained a step at a time, in the process group of `one_rank`."""

    def __init__(
        self, network: Network, device: str, precision: str, zero_stage: int = 0, compiled: str = "off", seed: int = 0
    ) -> None:
        self._network, self._device = network, torch.device(device, 0) if device == "cuda" else torch.device(device)
        cluster = ClusterConfig(workers=1, precision=precision, zero_stage=zero_stage, compile=compiled)
        self._engine = Engine(network.build(seed), network.stages["mlm"], cluster, self._device)
        self._steps = 0

    def step(self, batch: StepBatch, table: Tensor) -> Measured:
        """One optimiser step on what `prepared` made; what it measured is on the device, and not waited for."""
        stage = self._network.stages[batch.task]
        lr = learning_rate(stage, self._steps)
        self._steps += 1
        return train_step(self._engine, on_device(batch, table), stage, lr, seed=self._steps)

    def losses(self, measured: Measured) -> dict[str, float]:
        """By name; waits for the device."""
        return read(self._engine, [measured])[0][0]

    def close(self) -> None:
        self._engine.close()


def prepared(network: Network, batch: Batch, device: str, compiled: str = "off") -> StepBatch:
    """A batch as the threads that read ahead leave it: cut into micro-batches, rows in place of features, pinned."""
    model, stage = network.model, network.stages[batch.task]
    multiple, room = rounding(torch.device(device), ClusterConfig(compile=compiled))
    text = cut(batch.text, model.pad, multiple) if model.mask_padding else batch.text
    before, after = batch.rows.unbind(dim=1)
    images = {"photo": before} if batch.task == "class_labels" else {"before": before, "after": after}
    whole = text | {role + ROWS: rows.contiguous() for role, rows in images.items()}
    number, size = task_micro_batches(stage, batch.task, 1)
    assert number * size == len(batch.rows), "these sizes divide"
    group = stage.contrastive_group if compares_samples(batch.task) else 0
    parts = []
    for start in range(0, number * size, size):
        part = {name: value[start : start + size] for name, value in whole.items()}
        part = prepare(StepBatch(batch.task, [part], 0).model_task, part, model.pad, group, multiple=room)
        parts.append({name: value.pin_memory() for name, value in part.items()} if device == "cuda" else part)
    return StepBatch(batch.task, parts, len(batch.rows))


def on_device(batch: StepBatch, table: Tensor) -> StepBatch:
    """The batch with its features, float16, gathered from the table, and all else copied to the table's device."""
    parts = []
    for part in batch.micro_batches:
        moved = {name: value.to(table.device, non_blocking=True) for name, value in part.items()}
        parts.append(
            {
                name.removesuffix(ROWS): table.index_select(0, value) if name.endswith(ROWS) else value
                for name, value in moved.items()
            }
        )
    return dataclasses.replace(batch, micro_batches=parts)
