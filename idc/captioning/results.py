"""What a pair of images is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Alternative(NamedTuple):
    """A sentence and its log-probability, the sum over its words."""

    text: str
    log_probability: float


@dataclass(frozen=True)
class Caption:
    """One pair captioned.

    changed_probability: that the images differ, by the model's changed/unchanged head; calibrated if the model carries
    a calibration. alternatives: sentences with their log-probability, best first; the first is `text`. where: (2, rows,
    columns), how much the sentence is about each place of before and after, 0 to 1 = the most
    (`idc.captioning.heat_map`); a grid over the canvas of the backbone. None if no maps were asked for. unfamiliarity:
    how unlike the training pairs this one is; above 1, as 1 in 100 validation pairs is, the sentence is a guess. None
    if the model carries no calibration.
    """

    text: str
    changed_probability: float
    alternatives: tuple[Alternative, ...]
    where: np.ndarray | None
    unfamiliarity: float | None = None

    @property
    def familiar(self) -> bool | None:
        """Whether the pair is like the training pairs; None = not known."""
        return None if self.unfamiliarity is None else self.unfamiliarity <= 1
