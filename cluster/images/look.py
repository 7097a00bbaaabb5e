"""How an image is shown in one step of the training: which part of it, mirrored or not, brighter or darker.

Numpy and Pillow alone: the processes that decode import this, and start in a blink.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from idc.backbone.canvas import Canvas


class Look(NamedTuple):
    """What is done to one image; the defaults do nothing."""

    left: float = 0.0  # shares of width and height that are cut off
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    brightness: float = 1.0  # factors of Pillow's ImageEnhance
    contrast: float = 1.0
    colour: float = 1.0
    mirrored: bool = False

    def on(self, image: np.ndarray, canvas: Canvas, resampling: Image.Resampling) -> np.ndarray:
        """uint8 (height, width, 3) -> uint8 of the canvas' size."""
        height, width = image.shape[:2]
        box = None
        if self[:4] != (0.0, 0.0, 0.0, 0.0):
            box = (self.left * width, self.top * height, (1 - self.right) * width, (1 - self.bottom) * height)
        shown = canvas.fit(image, resampling, box)
        if self.mirrored:
            shown = np.ascontiguousarray(shown[:, ::-1])
        if self[4:7] == (1.0, 1.0, 1.0):
            return shown
        picture = Image.fromarray(shown)
        picture = ImageEnhance.Brightness(picture).enhance(self.brightness)
        picture = ImageEnhance.Contrast(picture).enhance(self.contrast)
        return np.asarray(ImageEnhance.Color(picture).enhance(self.colour))
