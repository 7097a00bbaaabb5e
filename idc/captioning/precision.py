"""Which device captions are made on, and with what precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PRECISIONS = ("fp32", "bf16")


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; None: the first GPU where there is one, else the CPU. ValueError: it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"device {device} cannot be used here ({str(error).splitlines()[0]})") from None
    return chosen


def choose_precision(precision: str | None, device: torch.device) -> str:
    """The precision asked for; None: "bf16" on a GPU that computes it, else "fp32". ValueError: no such precision.

    A CPU makes captions in fp32: one pair takes longer in bf16, and sentences would differ from processor to processor.
    """
    if precision is None:
        exact = device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)
        return "fp32" if exact else "bf16"
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it can be {' or '.join(PRECISIONS)}")
    if precision == "bf16" and device.type == "cpu":
        raise ValueError("precision bf16 is of a GPU; on a CPU captions are made in fp32")
    return precision


@contextmanager
def bf16(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Matrix products in bf16, each weight rounded once.

    Autocast keeps the bf16 form of those weights alone that want a gradient, and would round the others, an exported
    model's, again for every word. So for the time being all want one; nothing in here may compute it.

    There is no use for it on a CPU, where captions came out as measured (torch 2.13, one core of an EPYC with
    avx512_bf16, our architecture at d = 128): 1.4 to 1.7 times the time of fp32 for one pair, 0.7 to 0.8 for 32; scores
    that depend on whether a CPU has such instructions are not worth that.
    """
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
