"""Image bytes: what they are by content, how large by their header, and their pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import simplejpeg
from PIL import Image

from shards.errors import DataError
from shards.jpeg_start import common_size

# Read from the header before anything is allocated: a few kilobytes can claim to be a terabyte of pixels.
PIXEL_LIMIT = 64 * 1024 * 1024

_NAMES = {"jpg": "JPEG", "png": "PNG"}
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

    Raises DataError where the bytes are neither, are damaged, claim more than PIXEL_LIMIT pixels, or do not fit into
    memory.
    """
    kind = sniff(data)
    try:
        # CMYK and rare chroma subsamplings go to Pillow, and so do damaged headers.
        if kind == "jpg" and _jpeg_colours(data) in ("RGB", "YCbCr", "Gray"):
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        check_header(data)
        return _decode_with_pillow(data)
    except DataError:
        raise
    except MemoryError:
        raise DataError("an image that does not fit into memory") from None
    # What Pillow's readers raise for damaged files; ValueError also for text chunks that unpack to megabytes.
    except (ValueError, OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
            zlib.error, Image.DecompressionBombError) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"damaged {_NAMES[kind]} ({reason})") from None


def check_header(data: bytes) -> str:
    """ "jpg" or "png", by the first bytes; DataError where they are neither or claim more than PIXEL_LIMIT pixels."""
    kind = sniff(data)
    if kind is None:
        raise DataError("neither a JPEG nor a PNG file")
    if kind == "jpg":
        _jpeg_colours(data)
    elif len(data) < 33 or data[12:16] != b"IHDR":
        raise DataError("damaged PNG (no header)")
    else:
        _check_size(*struct.unpack(">II", data[16:24]))
    return kind


def _jpeg_colours(data: bytes) -> str:
    """The colour space of a JPEG whose size is in bounds; "" where the header is damaged or of a rare form."""
    if size := common_size(data):
        _check_size(*size)
        return "YCbCr"
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return ""
    _check_size(width, height)
    return colours


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
