"""Photos the right way up: what EXIF says about how a camera was held, applied to pixels.

The bytes in the tars keep the pixels as the camera stored them; whoever decodes turns them, as viewers do and as
idc.caption does with the two photos it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

# By EXIF's number (CIPA DC-008, 4.6.5): what makes the stored pixels (height, width, 3) upright. 1 is upright.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
EXIF_WITHIN = 1 << 16  # bytes from the start of a JPEG in which cameras write it


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """The pixels (height, width, 3) of an image that Pillow has opened, turned as its EXIF says, in one block."""
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
    except (ValueError, OSError, SyntaxError, KeyError, IndexError, TypeError, OverflowError, struct.error):
        return pixels  # damaged EXIF says nothing, and the picture may be whole
    turn = _TURNS.get(number) if isinstance(number, int) else None
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def may_be_turned(jpeg: bytes) -> bool:
    """Whether a JPEG says how it is held; asked of those alone whose start is uncommon (shards.images.jpeg_header).

    EXIF says it, or XMP, which Pillow reads as well.
    """
    start = jpeg[:EXIF_WITHIN]
    return b"Exif\0\0" in start or b"tiff:Orientation" in start
