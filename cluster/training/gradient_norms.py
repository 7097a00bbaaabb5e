"""What gradients are like lately, task by task, and whether one is so far above that its step is left out.

All of it stays on the device until a checkpoint is made: `judge` waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

WINDOW = 64  # norms of a task that are kept: those of its last applied steps
FEWEST = 16  # of them before one can be told from the others


class GradientNorms:
    """The norms of the last applied steps of every task. All ranks must be given the same norms."""

    def __init__(self, factor: float, device: torch.device) -> None:
        """A norm of more than `factor` times the median is too large; 0: none is."""
        self._factor, self._device = factor, device
        self._kept: dict[str, Tensor] = {}

    def judge(self, task: str, norm: Tensor) -> tuple[Tensor, Tensor]:
        """(whether a step of this norm is applied, a bool; the median before it, NaN before FEWEST steps): scalars."""
        kept = self._kept.get(task)
        if kept is None:
            kept = torch.full((WINDOW,), torch.nan, device=self._device)
        count = kept.isfinite().sum()
        # NaN is sorted to the end. torch.nanmedian would pick its element by a value that the host has to know.
        middle = kept.sort().values.gather(0, ((count - 1).clamp_min(0) // 2).reshape(1)).squeeze(0)
        usual = torch.where(count >= FEWEST, middle, torch.nan)
        applied = norm.isfinite()
        if self._factor:
            applied = applied & ~(norm > self._factor * usual)  # no comparison with NaN is true
        self._kept[task] = torch.where(applied, torch.cat([kept[1:], norm.reshape(1).to(kept.dtype)]), kept)
        return applied, usual

    def state(self) -> dict[str, list[float]]:
        """The norms by task, at most WINDOW, the newest last; waits for the device."""
        return {task: [norm for norm in kept.tolist() if math.isfinite(norm)] for task, kept in self._kept.items()}

    def load_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restores what `state` gave, bit by bit."""
        for task, norms in state.items():
            missing = [math.nan] * (WINDOW - len(norms))
            self._kept[task] = torch.tensor([*missing, *norms], dtype=torch.float32, device=self._device)
