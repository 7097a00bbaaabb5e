"""What tells pictures apart: digests of their bytes and of their pixels, a perceptual hash, and a thumbnail.

The hash (pHash of imagehash: signs of low frequencies, 64 bits) finds candidates among many pictures; the thumbnail
decides. It is freed of brightness and contrast, so a copy that was compressed, scaled, brightened or cut a little stays
within THUMBNAIL_LIMIT in every cell, and a scene of the same background with another object in it does not.
docs/data.md says what was measured.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from shards.images.decode import decode_image

SMALL = 64  # pixels a side of what hash and thumbnail are made from
CELLS = 16  # a thumbnail has as many cells a side
HASH_LIMIT = 10  # bits of 64 in which the hashes of near duplicates differ at most
SCALE = 16  # steps a standard deviation, so that a thumbnail is int8
THUMBNAIL_LIMIT = round(1.6 * SCALE)  # the largest difference of any cell and colour between near duplicates
EDGE = 0.5  # standard deviations between two neighbouring cells that make an edge
PLAIN = 0.1  # share of neighbours with an edge between them; below it there is too little to know a picture by
_SOFTENING = 4.0  # grey levels added to the spread, or noise would decide in pale pictures


class Fingerprint(NamedTuple):
    """Of one picture. `pixels`: BLAKE2b of shape and pixels. `hash`: 64 bits. `thumbnail`: int8 of shape (768,), cells
    by rows, colour last; None of a plain picture (a lone thing on an empty ground), which can only be told exactly.
    `size` is (width, height) in pixels.
    """

    pixels: bytes
    hash: int
    thumbnail: np.ndarray | None
    size: tuple[int, int]


def digest(data: bytes) -> bytes:
    """BLAKE2b of a file's bytes, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def fingerprint(data: bytes) -> Fingerprint:
    """The fingerprint of JPEG or PNG bytes; DataError where they cannot be decoded."""
    pixels = decode_image(data)
    exact = hashlib.blake2b(b"%dx%d" % pixels.shape[:2], digest_size=16)
    exact.update(np.ascontiguousarray(pixels).reshape(-1).data)
    picture = Image.fromarray(pixels)
    return Fingerprint(exact.digest(), *sketch(picture), picture.size)


def sketch(picture: Image.Image) -> tuple[int, np.ndarray | None]:
    """Hash and thumbnail of a picture, as in its fingerprint: what tells near duplicates."""
    # Both need little detail: from a small picture they take half the time.
    small = picture.resize((SMALL, SMALL), Image.Resampling.BOX)
    bits = np.packbits(imagehash.phash(small).hash.reshape(-1))
    return int.from_bytes(bits.tobytes(), "big"), _thumbnail(small)


def _thumbnail(picture: Image.Image) -> np.ndarray | None:
    """Means over CELLS x CELLS cells, in standard deviations from the picture's mean, times SCALE."""
    cells = np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), dtype=np.float32)
    # One mean and one spread for the three colours together: a picture with other colours is another picture.
    standard = (cells - cells.mean()) / (cells.std() + _SOFTENING)
    steps = [np.abs(np.diff(standard, axis=axis)).max(axis=2).reshape(-1) for axis in (0, 1)]
    if np.mean(np.concatenate(steps) > EDGE) < PLAIN:
        return None
    return np.clip(np.rint(standard * SCALE), -127, 127).astype(np.int8).reshape(-1)
