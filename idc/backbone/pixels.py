"""Opened images as the pixels a backbone takes: 8 bits, RGB, upright.

The rule is that of packing (shards.images.decode), so that a photo has the same values in training and when it is
captioned; a test compares the two over forms and modes.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image, ImageOps


def rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of an image that Pillow has opened, turned as its EXIF says; transparency is left out.

    Grey of 16 bits keeps its upper 8: Pillow would take everything above 255 for white. ValueError for 32 bits a pixel,
    whose brightest value nobody knows. Raises what Pillow does for damaged files.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("32 bits a pixel, whose brightest value nobody knows: save it with 8 or 16 bits")
    image.load()
    if _is_turned(image):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _is_turned(image: Image.Image) -> bool:
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
    except (ValueError, OSError, SyntaxError, KeyError, IndexError, TypeError, OverflowError, struct.error):
        return False  # damaged EXIF says nothing, and the picture may be whole
    return isinstance(number, int) and 2 <= number <= 8
