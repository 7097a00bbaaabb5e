"""Captioned pairs of a validation with their images, for those who look on while a run trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.errors import DataError
from shards.reading.reader import Stream

COUNT = 8  # the same ones at each validation, spread over what is captioned


@dataclass(frozen=True)
class ShownPair:
    """A pair, what the model says of it, and what people said."""

    key: str
    before: np.ndarray  # uint8 (height, width, 3)
    after: np.ndarray
    caption: str
    changed_probability: float
    references: tuple[str, ...]

    @property
    def side_by_side(self) -> np.ndarray:
        """Both images in one, uint8 (height, width, 3), the lower one with black below it."""
        height = max(len(self.before), len(self.after))
        each = [np.pad(image, ((0, height - len(image)), (0, 0), (0, 0))) for image in (self.before, self.after)]
        return np.concatenate(each, axis=1)


def some_pairs(predictions: Sequence[Mapping[str, Any]], stream: Stream) -> list[ShownPair]:
    """COUNT pairs of a validation, or fewer: those whose images cannot be read are left out."""
    found = []
    for place in np.linspace(0, len(predictions) - 1, min(COUNT, len(predictions))).astype(int).tolist():
        one = predictions[place]
        try:
            images = stream.images(stream.find(one["key"]))
        except DataError:
            continue  # whoever looks on can do without it
        found.append(
            ShownPair(
                one["key"], images["before"], images["after"], one["caption"], one["changed_probability"],
                tuple(one["references"]),
            )
        )  # fmt: skip
    return found
