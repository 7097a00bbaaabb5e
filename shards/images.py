"""Image bytes: what they are by content, how large by their header, and their pixels."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from shards.errors import DataError

# Read from the header before anything is allocated: a few kilobytes can claim to be a terabyte of pixels.
PIXEL_LIMIT = 64 * 1024 * 1024

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


def sniff(data: bytes) -> str | None:
    """What the first bytes say, whatever the file was called: "jpg", "png" or None."""
    if data.startswith(_JPEG):
        return "jpg"
    if data.startswith(_PNG):
        return "png"
    return None


def decode_image(data: bytes) -> np.ndarray:
    """Decodes JPEG or PNG bytes to uint8 RGB of shape (height, width, 3), pixels as stored (no EXIF rotation).

    Raises DataError where the bytes are neither, are damaged, or claim more than PIXEL_LIMIT pixels.
    """
    kind = sniff(data)
    if kind is None:
        raise DataError("neither a JPEG nor a PNG file")
    try:
        if kind == "jpg" and _is_common_jpeg(data):
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        return _decode_with_pillow(data)
    except DataError:
        raise
    except (ValueError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"damaged {'JPEG' if kind == 'jpg' else 'PNG'} ({reason})") from None


def _is_common_jpeg(data: bytes) -> bool:
    """Whether the fast decoder takes it; CMYK and rare chroma subsamplings go to Pillow, and so do damaged headers."""
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    _check_size(width, height)
    return colour_space in ("RGB", "YCbCr", "Gray")


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        _check_size(*image.size)
        if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it to 8 bits instead of scaling it
            grey = (np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.array(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DataError(f"the header claims {width}x{height} pixels")
    if width * height > PIXEL_LIMIT:
        raise DataError(f"the header claims {width}x{height} pixels, more than {PIXEL_LIMIT // 2**20} megapixels")
