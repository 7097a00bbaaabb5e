"""The size of most JPEGs from their first bytes: asking libjpeg costs as much as reading the sample from its tar."""

from __future__ import annotations

import re
import struct

# ITU-T T.81 (B.2) and JFIF: a file's start as libjpeg writes it, segments of fixed lengths: the JFIF header, one or two
# tables of 8 bits, the frame header. 8-bit Y, Cb and Cr, of which Y has 1x1, 2x1 or 2x2 times the others' samples.
_START = re.compile(
    rb"\xff\xd8\xff\xe0\0\x10JFIF\0.{9}(?:\xff\xdb\0\x43.{65}){1,2}"
    rb"\xff[\xc0\xc2]\0\x11\x08(....)\x03\x01[\x11\x21\x22].\x02\x11.\x03\x11",
    re.DOTALL,
)


def common_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a YCbCr JPEG that begins as libjpeg begins it; None for all others, which may be whole too."""
    start = _START.match(data)
    if start is None:
        return None
    height, width = struct.unpack(">HH", start[1])
    return width, height
