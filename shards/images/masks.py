"""Masks of pixels as short text: "START+LENGTH ..." of the runs, pixels numbered row by row."""

from __future__ import annotations

import re

import numpy as np


def encode(mask: np.ndarray) -> str:
    """The runs of a bool mask (height, width)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel().astype(np.int8), [0]])))
    return " ".join(f"{start}+{stop - start}" for start, stop in zip(edges[::2], edges[1::2], strict=True))


def decode(runs: str, height: int, width: int) -> np.ndarray:
    """The mask (height, width). Raises ValueError where the text is something else or leaves the image."""
    mask = np.zeros(height * width, bool)
    for run in runs.split():
        found = re.fullmatch(r"(\d{1,9})\+(\d{1,9})", run)
        start, length = (int(number) for number in found.groups()) if found else (0, 0)
        if not length or start + length > mask.size:
            raise ValueError(f"{run!r} is no run of pixels in an image of {width}x{height}")
        mask[start : start + length] = True
    return mask.reshape(height, width)
