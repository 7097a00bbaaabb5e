"""What workers say to each other besides gradients: sums, gathers and barriers over CPU memory, each with a limit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# What a rank says when another one has gone: never the cause.
_LOST = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "not all workers came within",
    "Timed out waiting",
)  # fmt: skip


def lost_a_rank(error: BaseException) -> bool:
    """Whether an error says that another rank has gone, or does not answer."""
    return any(said in str(error) for said in _LOST)


class Ranks:
    """This worker's place among all, and a gloo group beside the training group. All ranks make the same calls."""

    def __init__(self, timeout_s: float) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._timeout = timedelta(seconds=timeout_s)
        self._group = dist.new_group(backend="gloo", timeout=self._timeout)

    def apart(self) -> Ranks:
        """The same ranks in a group of their own: for a thread that meets beside this one. All ranks call it."""
        return Ranks(self._timeout.total_seconds())

    @property
    def first(self) -> bool:
        """True on the one rank that writes files."""
        return self.rank == 0

    def total(self, values: Iterable[float]) -> list[float]:
        """Element by element, the sum over all ranks, in float64."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(tensor, group=self._group)
        return tensor.tolist()

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, rank by rank, on every rank."""
        parts: list[list[Any]] = [[] for _ in range(self.world)]
        dist.all_gather_object(parts, items, group=self._group)
        return [item for part in parts for item in part]

    def collect(self, item: T) -> list[T]:
        """The items of all ranks, rank by rank, on rank 0; an empty list on the others."""
        found: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(item, found, dst=0, group=self._group)
        return found or []

    def share(self, value: T) -> T:
        """The value that rank 0 gave, on every rank."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def barrier(self, what: str) -> None:
        """Waits until all ranks are here; past the limit, RuntimeError with `what` and the missing ranks."""
        try:
            dist.monitored_barrier(self._group, timeout=self._timeout, wait_all_ranks=True)
        except RuntimeError as error:
            raise RuntimeError(f"{what}: not all workers came within {self._timeout.seconds} s ({error})") from None
