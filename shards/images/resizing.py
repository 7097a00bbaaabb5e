"""Smaller images for packing: the same pixels give the same bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

QUALITY = 95  # of the JPEGs that are made; the colours at full resolution

Resize = int | tuple[int, int]  # the shorter side, or (width, height), in pixels


def resized(data: bytes, kind: str, pixels: np.ndarray, resize: Resize) -> bytes:
    """The image of bytes `data` ("jpg" or "png", decoded to `pixels`, uint8 (height, width, 3)) at another size.

    A shorter side keeps the aspect and makes nothing larger; (width, height) is met exactly. An image that has the size
    keeps its bytes; PNG stays PNG.
    """
    height, width = pixels.shape[:2]
    if isinstance(resize, int):
        scale = min(1.0, resize / min(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    else:
        size = resize
    if size == (width, height):
        return data
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)  # Pillow's averages where it shrinks
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
