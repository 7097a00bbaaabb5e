"""Images as the pixels a backbone takes: 8 bits, RGB, upright; from a file's bytes, an opened image or an array.

The rule is that of packing (shards.images.decode), so that an image has the same values in training and when it is
captioned, and what one refuses the other refuses. A test compares the two over forms, modes, depths and damage. An
array counts as the PNG that holds it.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

PIXEL_LIMIT = 64 * 1024 * 1024  # by the header, before anything is decoded
# How the formats begin, under Pillow's names; it knows more, and for some of them it starts other programs.
_STARTS = {"JPEG": rb"\xff\xd8\xff", "PNG": rb"\x89PNG\r\n\x1a\n", "WEBP": rb"RIFF....WEBP", "GIF": rb"GIF8[79]a",
           "BMP": rb"BM", "TIFF": rb"II\*\0|MM\0\*"}  # fmt: skip
# What Pillow's readers raise for damaged files; ValueError also for text chunks that unpack to megabytes.
_DAMAGE = (ValueError, OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
           zlib.error, Image.DecompressionBombError)  # fmt: skip
_EXIF_DAMAGE = (ValueError, OSError, SyntaxError, KeyError, IndexError, TypeError, OverflowError, struct.error)
# By EXIF's number (CIPA DC-008, 4.6.5): what makes the stored pixels upright. 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_opened = threading.Lock()  # Pillow reads an opened image when its pixels are wanted, and not for two threads at once


class ImageError(ValueError):
    """An image that cannot be used; the message is one line, and says why."""


def decode(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3) of a JPEG, PNG, WebP, GIF (its first picture), BMP or TIFF file.

    ImageError if it is none of these, is damaged, or has more than PIXEL_LIMIT pixels.
    """
    kind = next((name for name, begin in _STARTS.items() if re.match(begin, data[:16], re.DOTALL)), None)
    if kind is None and data[4:8] == b"ftyp":  # as phones take them
        raise ImageError("HEIC, AVIF or a film: convert it to JPEG")
    if kind is None:
        raise ImageError("neither JPEG nor PNG, nor WebP, GIF, BMP or TIFF")
    try:
        if kind == "JPEG" and (pixels := _jpeg(data)) is not None:
            return pixels
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            return rgb(image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("an image that does not fit into memory") from None
    except UnidentifiedImageError:  # its text is the address of a buffer
        raise ImageError(f"damaged {kind} (no image in it that can be read)") from None
    except Image.DecompressionBombError:  # Pillow looks at some formats' headers before we can
        raise ImageError(f"the header claims more than {PIXEL_LIMIT // 2**20} megapixels") from None
    except _DAMAGE as error:
        raise ImageError(f"damaged {kind} ({' '.join(str(error).split()) or type(error).__name__})") from None


def _jpeg(data: bytes) -> np.ndarray | None:
    """The pixels of a JPEG of the usual kinds, by libjpeg; None for CMYK and damaged headers, which Pillow is asked.

    libjpeg refuses images with damage inside that Pillow would fill with grey.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height)
    if colours not in ("RGB", "YCbCr", "Gray"):
        return None
    pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _upright(pixels, image)
    except _DAMAGE:  # Pillow does not take it; libjpeg did
        return pixels


def rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of an image that Pillow has opened, turned as its EXIF says; transparency is left out.

    Grey of 16 bits keeps its upper 8: Pillow would take everything above 255 for white. ImageError for 32 bits a pixel,
    whose brightest value nobody knows, and for more than PIXEL_LIMIT pixels. Raises what Pillow does for damaged files.
    """
    _check_size(*image.size)
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ImageError("32 bits a pixel, whose brightest value nobody knows: save it with 8 or 16 bits")
    with _opened:
        image.load()
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise ImageError("values that 16 bits cannot hold: save it with 8 or 16 bits a pixel")
        return _upright(of_array(deep.astype(np.uint16)), image)
    return _upright(np.asarray(image.convert("RGB")), image)


def of_array(array: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of bool, uint8, uint16 or floating values from 0 to 1, as the PNG that holds them would have.

    Shapes: (H, W) or (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, (H, W, 4) RGBA; alpha is left out.
    ImageError for another type or shape, and for floats outside of 0 to 1.
    """
    shape = array.shape
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] > 4):
        raise ImageError(f"an array must have the shape (H, W) or (H, W, 1 to 4), not {shape}")
    _check_size(shape[1], shape[0])
    if array.dtype == bool:
        values = array * np.uint8(255)
    elif array.dtype == np.uint8:
        values = array
    elif array.dtype == np.uint16:
        values = (array >> 8).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # neither is true of NaN
            raise ImageError("an array of floats must hold values from 0 to 1")
        values = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    else:
        raise ImageError(f"an array must be bool, uint8, uint16 or floats from 0 to 1, not {array.dtype}")
    values = values if values.ndim == 3 else values[:, :, None]
    return np.repeat(values[:, :, :1], 3, axis=2) if values.shape[2] < 3 else np.ascontiguousarray(values[:, :, :3])


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """The pixels (H, W, 3) of an image that Pillow has opened, turned as its EXIF says."""
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
    except _EXIF_DAMAGE:
        return pixels  # damaged EXIF says nothing, and the picture may be whole
    turn = _TURNS.get(number) if isinstance(number, int) else None
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > PIXEL_LIMIT:
        raise ImageError(f"{width} x {height} pixels, and at most {PIXEL_LIMIT // 2**20} megapixels are read")
