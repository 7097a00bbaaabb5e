"""The start of JPEG files: the size that libjpeg finds, or none told."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.images.jpeg_header import common_size


def jpeg(mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 31, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg(subsampling=0, quality=95),
        jpeg(subsampling=1, optimize=True),
        jpeg(progressive=True),
        jpeg(qtables=[[1] * 64]),
        simplejpeg.encode_jpeg(np.zeros((20, 31, 3), np.uint8)),
    ],
)
def test_the_size_and_colours_are_those_that_libjpeg_finds(data):
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    assert common_size(data) == (width, height) == (31, 20) and colours == "YCbCr"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_libjpeg(mode):
    assert common_size(jpeg(mode)) is None


def test_what_only_looks_alike_is_left_to_libjpeg():
    data = jpeg()
    frame = data.index(b"\xff\xc0\0\x11\x08")
    assert common_size(data[: frame + 10]) is None
    for place in (3, 5, 21, 23, frame + 1, frame + 4, frame + 9, frame + 10, frame + 11, frame + 14, frame + 17):
        changed = bytearray(data)
        changed[place] ^= 0x40
        assert common_size(bytes(changed)) is None, place
