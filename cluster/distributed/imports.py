"""Imports without Python's garbage collector, which finds nothing there and takes a quarter of their time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """For imports of large packages. What they made is not looked through later either: it stays to the end."""
    if not gc.isenabled():  # somebody around us does the same, or wants none at all
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
