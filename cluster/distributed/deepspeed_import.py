"""DeepSpeed, imported as every worker needs it: quiet, and without torch's compiler, which most runs do not use."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from types import MethodType, ModuleType

import torch

from cluster.distributed.imports import quickly


def import_deepspeed() -> ModuleType:
    """DeepSpeed, quiet, and without the shared-memory op that it would compile for half a minute on CPUs."""
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    with warnings.catch_warnings(), quickly():
        warnings.simplefilter("ignore")
        import deepspeed
        import deepspeed.ops
        from deepspeed.runtime import compiler
        from deepspeed.runtime.zero import partitioned_param_coordinator, stage3
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # ZeRO 3 waits for the device in two places that no setting stops. Whether the norm is finite our optimiser decides
    # on the device (`Engine.step`). That all ranks use the same modules is so by construction, and because tasks take
    # turns DeepSpeed would compare their order anew in every forward pass.
    stage3.is_invalid_grad_norm = lambda norm: False
    partitioned_param_coordinator.assert_ints_same_as_other_ranks = lambda ints: None
    # To see that an optimiser is not Muon, DeepSpeed imports it, and compiles its kernels as it does.
    theirs, compiler.compile = compiler.compile, lambda: lambda kernel: kernel
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer
    finally:
        compiler.compile = theirs
    return deepspeed


def leave_out_compiler() -> None:
    """torch's optimisers import its compiler when they are made, to tell it to leave them alone: over a second of work.

    For a process that compiles nothing. torch keeps what it made of a function that it has told so in this attribute.
    """
    optimizer = torch.optim.Optimizer
    for function in (optimizer.add_param_group, optimizer.zero_grad):
        plain = inspect.unwrap(function)
        setattr(plain, "__dynamo_disable", plain)  # noqa: B010  # a name that Python would change


def step_alone(adam: torch.optim.AdamW) -> None:
    """An optimiser's step without the call of the compiler around it, and without hooks, of which there are none."""
    adam.step = MethodType(torch.no_grad()(inspect.unwrap(type(adam).step)), adam)  # type: ignore[method-assign]
