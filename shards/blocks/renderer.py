"""Pictures of scenes in the look of CLEVR: a small ray caster, compiled, one thread, the same bytes for the same scene.

Direct light with area shadows, a constant sky, light that the table throws back, metal that mirrors the scene; linear
light, then the sRGB curve. Colours are linear albedo (value / 255), as in CLEVR.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from shards.blocks import geometry
from shards.blocks.geometry import BLUE, FAR, GREEN, HFOV_TANGENT, KIND, METAL, RED, SPHERE, camera_ray, first_hit
from shards.blocks.lighting import (
    GROUND_ALBEDO,
    SKY,
    bounce_light,
    brushed_light,
    lamp_images,
    matte_light,
    pack_lamps,
    shade_masks,
)
from shards.blocks.scenes import Scene

MIRRORED_SKY = 0.08  # more than SKY: rough metal also gathers some light of the lamps there
MATTE = 0.9  # share of light that matte things scatter in their own colour
SHEEN = 0.04  # share of the broad highlight of matte things
_TILE = 8


def render(scene: Scene, width: int, height: int, supersample: int = 2) -> np.ndarray:
    """The image of the scene, uint8 (height, width, 3), from supersample x supersample rays a pixel."""
    solids = geometry.pack(scene.objects)
    frame = geometry.camera_frame(scene.camera)
    lamps = pack_lamps(scene.lamps)
    masks = geometry.tile_masks(solids, frame, width, height, _TILE)
    shade = shade_masks(solids, lamps)
    bounce = bounce_light(solids, lamps)
    return _develop(*_trace(solids, frame, lamps, masks, shade, bounce, width, height, supersample))


@njit(cache=True, fastmath=True)
def _radiance(solids, lamps, shade, bounce, mask, ox, oy, oz, dx, dy, dz, u, v):
    """RGB that comes in along a camera ray which can meet the solids in `mask`."""
    r = g = b = 0.0
    tr = tg = tb = 1.0
    n = solids.shape[0]
    me = -1
    brushed = False
    for depth in range(4):
        table = -oz / dz if dz < 0.0 else FAR
        nearest, found = first_hit(solids, mask, ox, oy, oz, dx, dy, dz, table)
        if depth > 0 and not brushed:
            lr, lg, lb = lamp_images(lamps, ox, oy, oz, dx, dy, dz, nearest)
            r += tr * lr
            g += tg * lg
            b += tb * lb
        if nearest >= FAR:
            seen = SKY if depth == 0 else MIRRORED_SKY
            return r + tr * seen, g + tg * seen, b + tb * seen, 0
        px = ox + nearest * dx
        py = oy + nearest * dy
        pz = oz + nearest * dz
        if found < 0:
            dr, dg, db, _, _, _, half_lit = matte_light(
                solids, lamps, shade, -1, px, py, 0.0, 0.0, 0.0, 1.0, -dx, -dy, -dz, u, v
            )
            r += tr * GROUND_ALBEDO * (dr + SKY)
            g += tg * GROUND_ALBEDO * (dg + SKY)
            b += tb * GROUND_ALBEDO * (db + SKY)
            kind = 0
            if depth == 0:
                kind = 2 if half_lit else 1
            return r, g, b, kind
        nx, ny, nz = geometry.normal(solids, found, px, py, pz)
        cr, cg, cb = solids[found, RED], solids[found, GREEN], solids[found, BLUE]
        if solids[found, METAL] == 0.0 or depth == 3:
            dr, dg, db, sr, sg, sb, _ = matte_light(
                solids, lamps, shade, found, px, py, pz, nx, ny, nz, -dx, -dy, -dz, u, v
            )
            up = 0.5 * (1.0 + nz) * SKY
            # Near the table a thing shades the ground that would light it.
            down = 0.5 * (1.0 - nz) * (0.6 + 0.4 * min(pz / 0.7, 1.0))
            r += tr * (MATTE * cr * (dr + up + down * bounce[found, 0]) + SHEEN * sr)
            g += tg * (MATTE * cg * (dg + up + down * bounce[found, 1]) + SHEEN * sg)
            b += tb * (MATTE * cb * (db + up + down * bounce[found, 2]) + SHEEN * sb)
            return r, g, b, 0
        brushed = nz > 0.999 and solids[found, KIND] != SPHERE
        if brushed:
            lr, lg, lb = brushed_light(solids, lamps, found, px, py, pz, -dx, -dy, -dz)
            r += tr * cr * lr
            g += tg * cg * lg
            b += tb * cb * lb
        away = 2.0 * (dx * nx + dy * ny + dz * nz)
        # A little spread stands for roughness.
        dx += -away * nx + 0.05 * (u - 0.5)
        dy += -away * ny + 0.05 * (v - 0.5)
        dz += -away * nz
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        dx /= length
        dy /= length
        dz /= length
        ox, oy, oz = px, py, pz
        tr *= cr
        tg *= cg
        tb *= cb
        me = found
        mask = ((1 << n) - 1) & ~(1 << me)
    return r, g, b, 0


@njit(cache=True, fastmath=True, inline="always")
def _encode(light):
    """Linear light to an sRGB byte."""
    light = min(max(light, 0.0), 1.0)
    coded = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1.0 / 2.4) - 0.055
    return np.uint8(255.0 * coded + 0.5)


@njit(cache=True, fastmath=True)
def _trace(solids, frame, lamps, masks, shade, bounce, width, height, supersample):
    """(linear light (height, width, 3), marks (height, width)): 0 not only table, 1 table, 2 table in a half shadow."""
    light = np.empty((height, width, 3))
    marks = np.zeros((height, width), np.uint8)
    step = 2.0 * HFOV_TANGENT / width
    share = 1.0 / (supersample * supersample)
    for row in range(height):
        for column in range(width):
            mask = masks[row // _TILE, column // _TILE]
            r = g = b = 0.0
            # The four pixels of a 2x2 block test different points of the lamps: together a grid twice as fine, which
            # `_smooth` brings together again.
            shift_u = 0.25 + 0.5 * (column & 1)
            shift_v = 0.25 + 0.5 * (row & 1)
            table = 0
            shaded = 0
            for i in range(supersample):
                y = (0.5 * height - row - (i + 0.5) / supersample) * step
                for j in range(supersample):
                    x = (column + (j + 0.5) / supersample - 0.5 * width) * step
                    dx, dy, dz = camera_ray(frame, x, y)
                    u = (j + shift_u) / supersample
                    v = (i + shift_v) / supersample
                    lr, lg, lb, kind = _radiance(
                        solids, lamps, shade, bounce, mask, frame[0, 0], frame[0, 1], frame[0, 2], dx, dy, dz, u, v
                    )
                    r += min(lr, 1.5)
                    g += min(lg, 1.5)
                    b += min(lb, 1.5)
                    if kind == 1:
                        table += 1
                    elif kind == 2:
                        table += 1
                        shaded += 1
            light[row, column, 0] = r * share
            light[row, column, 1] = g * share
            light[row, column, 2] = b * share
            if table == supersample * supersample:
                marks[row, column] = 2 if shaded else 1
    return light, marks


@njit(cache=True, fastmath=True)
def _develop(light, marks):
    """The sRGB image. Half shadows on the table are smoothed over 3x3 pixels of table with binomial weights, which give
    the four kinds of pixel of `_trace` equal shares and so cancel their differences."""
    height, width = marks.shape
    image = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            r = g = b = total = 0.0
            if marks[row, column] == 2:
                for y in range(max(row - 1, 0), min(row + 2, height)):
                    for x in range(max(column - 1, 0), min(column + 2, width)):
                        if marks[y, x]:
                            weight = (2.0 if y == row else 1.0) * (2.0 if x == column else 1.0)
                            r += weight * light[y, x, 0]
                            g += weight * light[y, x, 1]
                            b += weight * light[y, x, 2]
                            total += weight
                r /= total
                g /= total
                b /= total
            else:
                r, g, b = light[row, column, 0], light[row, column, 1], light[row, column, 2]
            image[row, column, 0] = _encode(r)
            image[row, column, 1] = _encode(g)
            image[row, column, 2] = _encode(b)
    return image
