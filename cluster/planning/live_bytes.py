"""Counts the bytes of tensors that are alive while a program runs, without the program's numbers.

Under torch's FakeTensorMode tensors have shapes and no contents, and every operator says what it would return. Each new
storage is counted from the operator that makes it until nothing refers to it any more: what autograd keeps for the
backward pass, gradients, and all that comes and goes between.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is on: `live` bytes of the storages made since then that are still there, and the `peak` of them.

    `peak_of_all` counts those, too, that are `set_apart`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.apart = self.peak = self.peak_of_all = 0
        self._apart: weakref.WeakSet = weakref.WeakSet()
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(storage) for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known and id(storage) not in before:
                self._known.add(storage)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                self.peak_of_all = max(self.peak_of_all, self.live + self.apart)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return made

    def set_apart(self, tensor: torch.Tensor) -> None:
        """Counts a tensor's storage no more among those that are live; it is kept for good."""
        storage = tensor.untyped_storage()
        if storage not in self._apart:
            self._apart.add(storage)
            self.live -= storage.nbytes()
            self.apart += storage.nbytes()

    def _gone(self, size: int) -> None:
        self.live -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
