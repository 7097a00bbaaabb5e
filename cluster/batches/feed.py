"""Batches on the device of a worker, read ahead: what a training loop iterates over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from cluster.batches.batches import Batches, StepBatch
from cluster.batches.resident import Resident
from cluster.config.fields import DataConfig
from shards.reading.reader import Prefetcher


class Feed:
    """Iterates over the batches of `steps`, in order, their tensors on the device. A context manager.

    Threads make them ahead. On a GPU they also pin them, and copies run on a stream of their own: the host is ahead of
    the device, so the copy of a batch passes beside the step before.
    """

    def __init__(
        self,
        batches: Batches,
        steps: Iterable[int],
        data: DataConfig,
        device: torch.device,
        resident: Resident | None = None,
    ) -> None:
        self._batches, self._device, self._resident = batches, device, resident
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead = Prefetcher(self._host_batch, steps, data.read_threads, data.prefetch)

    def __enter__(self) -> Feed:
        self._ahead.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._ahead.__exit__(*error)

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> StepBatch:
        batch = next(self._ahead)
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            batch = _each(batch, lambda tensor: tensor.to(self._device, non_blocking=True))
        stream = torch.cuda.current_stream(self._device)
        stream.wait_stream(self._copies)
        for micro_batch in batch.micro_batches:
            for tensor in micro_batch.values():
                tensor.record_stream(stream)
        if self._resident is not None and self._resident.device == self._device:
            batch = dataclasses.replace(batch, micro_batches=[self._resident.take(m) for m in batch.micro_batches])
        return batch

    def _host_batch(self, step: int) -> StepBatch:
        """In a thread of the prefetcher."""
        batch = self._batches.step(step)
        if self._resident is not None and self._resident.device.type == "cpu":
            batch = dataclasses.replace(batch, micro_batches=[self._resident.take(m) for m in batch.micro_batches])
        if self._copies is None:
            return batch
        with torch.cuda.device(self._device):  # a thread begins on the first GPU, and pinning opens a context there
            return _each(batch, Tensor.pin_memory)


def _each(batch: StepBatch, change: Callable[[Tensor], Tensor]) -> StepBatch:
    """The batch with every tensor changed."""
    changed = [{name: change(tensor) for name, tensor in part.items()} for part in batch.micro_batches]
    return dataclasses.replace(batch, micro_batches=changed)
