"""Where an image lies on the canvas that a backbone sees; maps over that canvas drawn at the image's own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

RED = (235, 40, 30)  # of what maps light up


@dataclass(frozen=True)
class Canvas:
    """Images are fitted into `inner` (height, width), centred on `outer`, whose sides are multiples of the stride."""

    inner: tuple[int, int]
    outer: tuple[int, int]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Canvas:
        """The canvas of a backbone described by `Backbone.describe`, as feature folders and model folders carry it."""
        stride = description["strides"][-1]
        return cls(tuple(description["size"]), tuple(side * stride for side in description["grid"]))

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, height, width), in pixels of the canvas, of an image of height x width pixels."""
        scale = min(self.inner[0] / height, self.inner[1] / width)
        fitted = max(1, round(height * scale)), max(1, round(width * scale))
        return (self.outer[0] - fitted[0]) // 2, (self.outer[1] - fitted[1]) // 2, *fitted

    def fit(
        self,
        image: np.ndarray,
        resampling: Image.Resampling,
        box: tuple[float, float, float, float] | None = None,
    ) -> np.ndarray:
        """uint8 (height, width, 3) of any size -> of the size of `outer`: fitted into `inner`, edges replicated.

        box: left, top, right, bottom of the part that is shown in the place of the whole image, in its pixels.
        """
        top, left, height, width = self.place(*image.shape[:2])
        if box is not None or image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), resampling, box))
        if (height, width) == self.outer:
            return image
        bottom, right = self.outer[0] - top - height, self.outer[1] - left - width
        return np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")

    def on_image(self, grid: np.ndarray, height: int, width: int) -> np.ndarray:
        """A map over the canvas, any (rows, columns), at the pixels of an image: float32 (height, width), bilinear."""
        top, left, tall, wide = self.place(height, width)
        drawn = Image.fromarray(np.ascontiguousarray(grid, np.float32))
        drawn = drawn.resize(self.outer[::-1], Image.Resampling.BILINEAR).crop((left, top, left + wide, top + tall))
        return np.asarray(drawn.resize((width, height), Image.Resampling.BILINEAR))


def light_up(image: np.ndarray, strength: np.ndarray) -> Image.Image:
    """The image (H, W, 3) uint8 with red where `strength` (H, W), 0 to 1, is high."""
    base = Image.fromarray(image)
    return Image.composite(Image.new("RGB", base.size, RED), base, _opacity(strength))


def glow(strength: np.ndarray) -> Image.Image:
    """What `light_up` lays over an image, alone: RGBA, clear where `strength` (H, W) is 0."""
    red = Image.new("RGB", strength.shape[::-1], RED)
    red.putalpha(_opacity(strength))
    return red


def _opacity(strength: np.ndarray) -> Image.Image:
    return Image.fromarray((180 * np.clip(strength, 0, 1)).astype(np.uint8))
