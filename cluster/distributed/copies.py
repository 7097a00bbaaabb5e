"""Copies of tensors in the memory of the CPU, made by a thread beside the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor


class Copies:
    """Float32 copies on the CPU that a thread makes beside the training; until then nobody changes the originals."""

    def __init__(self, room: dict[str, Tensor], device: torch.device) -> None:
        """`room`: see `Engine.snapshot`; `device`: where the originals are."""
        self._room, self._pairs, self._made = room, list[tuple[Tensor, Tensor]](), threading.Event()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the last step is done before they begin
        self.waited_s = 0.0  # that somebody waited for them

    def of(self, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where the copies will be, by the same names; `kind`: tells their room from that of others."""
        found = {}
        for name, tensor in tensors.items():
            key = f"{kind}/{name}"
            there = self._room.get(key)
            if there is None or there.shape != tensor.shape:
                there = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=tensor.is_cuda)
            self._room[key] = found[name] = there
            self._pairs.append((there, tensor.detach()))
        return found

    def make(self) -> None:
        """Makes them, in the thread that calls it. Whoever waits goes on, even if it raises."""
        try:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                for there, tensor in self._pairs:
                    there.copy_(tensor, non_blocking=True)
            if self._stream is not None:
                self._stream.synchronize()
        finally:
            self._made.set()

    def wait(self, limit_s: float) -> None:
        """Until they are made; RuntimeError past the limit."""
        began = time.perf_counter()
        if not self._made.wait(limit_s):
            raise RuntimeError(f"the copy of the state for a checkpoint was not made within {limit_s:g} s")
        self.waited_s += time.perf_counter() - began
