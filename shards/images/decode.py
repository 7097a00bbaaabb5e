"""Image bytes: what they are by content, how large by their header, and their pixels."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from shards.errors import DataError
from shards.images.jpeg_header import common_size
from shards.images.orientation import may_be_turned, upright

# Read from the header before anything is allocated: a few kilobytes can claim to be a terabyte of pixels.
PIXEL_LIMIT = 64 * 1024 * 1024

_NAMES = {"jpg": "JPEG", "png": "PNG"}
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# How the formats begin that become PNG when they are packed, under Pillow's names.
_OTHERS = {"WEBP": rb"RIFF....WEBP", "GIF": rb"GIF8[79]a", "BMP": rb"BM", "TIFF": rb"II\*\0|MM\0\*"}
# What Pillow's readers raise for damaged files; ValueError also for text chunks that unpack to megabytes.
_DAMAGE = (ValueError, OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
           zlib.error, Image.DecompressionBombError)  # fmt: skip


def sniff(data: bytes) -> str | None:
    """What the first bytes say, whatever the file was called: "jpg", "png" or None."""
    if data.startswith(_JPEG):
        return "jpg"
    if data.startswith(_PNG):
        return "png"
    return None


def decode_image(data: bytes, at_least: int = 0) -> np.ndarray:
    """Decodes JPEG or PNG bytes to uint8 RGB of shape (height, width, 3), upright as their EXIF says.

    With `at_least`, a larger JPEG may come out smaller, which is sooner done; no side below that many pixels.

    Raises DataError where the bytes are neither, are damaged, claim more than PIXEL_LIMIT pixels, or do not fit into
    memory.
    """
    kind = sniff(data)
    try:
        if size := common_size(data):  # such a start leaves no room for EXIF
            _check_size(*size)
            return _decode_jpeg(data, at_least)
        # CMYK and rare chroma subsamplings go to Pillow, and so do damaged headers.
        if kind == "jpg" and _jpeg_colours(data) in ("RGB", "YCbCr", "Gray"):
            pixels = _decode_jpeg(data, at_least)
            return _turned(pixels, data) if may_be_turned(data) else pixels
        check_header(data)
        return _decode_with_pillow(data)
    except DataError:
        raise
    except MemoryError:
        raise DataError("an image that does not fit into memory") from None
    except _DAMAGE as error:
        assert kind is not None, "other bytes are refused by their start"
        raise _damaged(_NAMES[kind], error) from None


def _decode_jpeg(data: bytes, at_least: int) -> np.ndarray:
    """By libjpeg, at half the size or less if no side is then below `at_least` pixels; 0: at its own size."""
    smaller = {"min_height": at_least, "min_width": at_least, "min_factor": 2} if at_least else {}
    return simplejpeg.decode_jpeg(data, colorspace="RGB", **smaller)


def format_of(start: bytes) -> str | None:
    """What a file is by its first 16 bytes: JPEG, PNG, WEBP, GIF, BMP or TIFF, which can be packed; None otherwise."""
    kind = sniff(start)
    if kind is not None:
        return _NAMES[kind]
    return next((name for name, begin in _OTHERS.items() if re.match(begin, start, re.DOTALL)), None)


def jpeg_or_png(data: bytes) -> bytes:
    """JPEG and PNG bytes as they are; of WebP, GIF (its first picture), BMP and TIFF a PNG of the same pixels.

    Transparency is left out, as decode_image does. Raises DataError as decode_image does; also for TIFF of 32 bits.
    """
    kind = format_of(data[:16])
    if kind is None:
        raise DataError("neither JPEG nor PNG, nor WebP, GIF, BMP or TIFF")
    if kind in _NAMES.values():
        return data
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about damaged tags, and about sizes, which we check
            Image.fromarray(_decode_with_pillow(data, (kind,))).save(buffer, "PNG")
    except DataError:
        raise
    except MemoryError:
        raise DataError("an image that does not fit into memory") from None
    except _DAMAGE as error:
        raise _damaged(kind, error) from None
    return buffer.getvalue()


def _damaged(kind: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        return DataError(f"damaged {kind} (no image in it that can be read)")
    if isinstance(error, Image.DecompressionBombError):  # Pillow looks at some formats' headers before we can
        return DataError(f"the header claims more than {PIXEL_LIMIT // 2**20} megapixels")
    return DataError(f"damaged {kind} ({' '.join(str(error).split()) or type(error).__name__})")


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


def _decode_with_pillow(data: bytes, formats: tuple[str, ...] = ("JPEG", "PNG")) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=formats) as image:
        _check_size(*image.size)
        if image.format == "TIFF" and image.mode in ("I", "F"):
            raise DataError("a TIFF of 32 bits a pixel, whose brightest value nobody knows: save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it to 8 bits instead of scaling it
            grey = (np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8)
            return upright(np.repeat(grey[:, :, None], 3, axis=2), image)
        return upright(np.array(image.convert("RGB")), image)


def _turned(pixels: np.ndarray, jpeg: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            return upright(pixels, image)
    except _DAMAGE:  # Pillow does not take it; simplejpeg did
        return pixels


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DataError(f"the header claims {width}x{height} pixels")
    if width * height > PIXEL_LIMIT:
        raise DataError(f"the header claims {width}x{height} pixels, more than {PIXEL_LIMIT // 2**20} megapixels")
