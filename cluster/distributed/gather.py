"""Rows of all ranks for losses that compare the whole global batch, with gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, rows: Tensor) -> Tensor:
        context.mine = len(rows)
        return _all_rows(rows)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        # Every rank's loss looks at every rank's rows: what all of them want of mine, added up.
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        first = dist.get_rank() * context.mine
        return gradient[first : first + context.mine]


def gather(rows: Tensor) -> Tensor:
    """(n, ...) of this rank -> (world * n, ...) of all, rank by rank; all ranks call it with the same shape.

    The gradient of a row is the sum of what all ranks' losses want of it, so a loss that is the sum of the ranks' parts
    has the gradient it would have on one rank.
    """
    if dist.get_world_size() == 1:
        return rows
    return _Gather.apply(rows) if rows.is_floating_point() else _all_rows(rows)


def _all_rows(rows: Tensor) -> Tensor:
    sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows  # gloo has no bool
    found = sent.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(found, sent.contiguous())
    return found.to(rows.dtype)
