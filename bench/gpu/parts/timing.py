"""How long something takes on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def wait(device: torch.device | str) -> None:
    """Until the device has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def by_events(work: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds that one call takes on the device, the best of three runs of `repeats` calls; CUDA events on a GPU."""
    work()
    wait(device)
    best = float("inf")
    for _ in range(3):
        if device == "cuda":
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            for _ in range(repeats):
                work()
            last.record()
            torch.cuda.synchronize()
            taken = first.elapsed_time(last) / 1000
        else:
            started = time.perf_counter()
            for _ in range(repeats):
                work()
            taken = time.perf_counter() - started
        best = min(best, taken / repeats)
    return best


def by_clock(work: Callable[[int], object], device: str, seconds: float, most: int, warm_up: int = 3) -> float:
    """Mean seconds of work(0), work(1), ... by the wall clock, host and device together, after a warm-up.

    At most `most` calls, and no more than fill the seconds.
    """
    for number in range(warm_up):
        work(number)
    wait(device)
    started = time.perf_counter()
    work(0)
    wait(device)
    one = time.perf_counter() - started
    count = max(1, min(most, int(seconds / max(one, 1e-9))))
    started = time.perf_counter()
    for number in range(count):
        work(number)
    wait(device)
    return (time.perf_counter() - started) / count
