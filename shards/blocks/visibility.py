"""Which pixels of an image show which object: a picture of object numbers, cheap enough to try scenes with."""

from __future__ import annotations

import numpy as np
from numba import njit

from shards.blocks.geometry import FAR, HFOV_TANGENT, camera_frame, camera_ray, first_hit, pack, tile_masks

_TILE = 8


def object_picture(scene, width: int, height: int) -> np.ndarray:
    """(height, width) int16: the number of the object of the `scenes.Scene` that each pixel shows (one ray a pixel), -1
    for the table."""
    solids = pack(scene.objects)
    frame = camera_frame(scene.camera)
    masks = tile_masks(solids, frame, width, height, _TILE)
    return _numbers(solids, frame, masks, width, height)


def object_pixels(scene, width: int, height: int) -> np.ndarray:
    """(n,) int64: visible pixels of each object in an image of this size."""
    return np.bincount(object_picture(scene, width, height).ravel() + 1, minlength=len(scene.objects) + 1)[1:]


@njit(cache=True, fastmath=True)
def _numbers(solids, frame, masks, width, height):
    numbers = np.full((height, width), -1, np.int16)
    step = 2.0 * HFOV_TANGENT / width
    ox, oy, oz = frame[0, 0], frame[0, 1], frame[0, 2]
    for row in range(height):
        v = (0.5 * height - row - 0.5) * step
        for column in range(width):
            mask = masks[row // _TILE, column // _TILE]
            if mask == 0:
                continue
            u = (column + 0.5 - 0.5 * width) * step
            dx, dy, dz = camera_ray(frame, u, v)
            _, numbers[row, column] = first_hit(solids, mask, ox, oy, oz, dx, dy, dz, FAR)
    return numbers
