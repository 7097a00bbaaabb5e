"""Light at a point, compiled: three square lamps and a soft sun with area shadows, and what they look like in metal.

Lamp powers follow Blender's: a lamp of W watts and area A has radiance W / (4 A). Where the numbers are not CLEVR's own
they were fitted by eye and by the median brightness of its pictures.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from shards.blocks.geometry import BOUND, FAR, X, Y, Z, hit, near_bound
from shards.blocks.scenes import LAMP_BASES

LAMP_WATTS = (100.0, 50.0, 30.0)
LAMP_SIDES = (0.5, 1.0, 0.5)
LAMP_RGB = ((1.0, 0.932, 0.817), (1.0, 1.0, 1.0), (0.762, 0.818, 1.0))
SUN_TOWARD = (0.414, -0.195, 0.889)
SUN_STRENGTH = 0.45
SUN_SPREAD = 0.12  # tangent of the sun's angular radius
SKY = 0.054
GROUND_ALBEDO = 0.72
BRUSHED_ALONG, BRUSHED_ACROSS = 0.6, 0.2  # roughness of the turned tops of metal things
METAL_ALPHA = 0.04  # width (radians) of a lamp's image in metal
# Lamps are rows: position, two half sides, normal, radiance * area as RGB, area. The sun is the last row.
_LAMPS = 4
_SUN = 3
# The part of the table where things can throw shadows, cut into cells that know which things may shade them.
_CELLS = 56
_REACH = 12.0
_CELL = 2.0 * _REACH / _CELLS


def pack_lamps(positions) -> np.ndarray:
    """(4, 16): the lamps of `Scene.lamps`, then the sun. They keep aiming as at their base place: at the origin."""
    lamps = np.zeros((_LAMPS, 16))
    rows = zip(lamps, positions, LAMP_BASES, LAMP_WATTS, LAMP_SIDES, LAMP_RGB, strict=False)
    for row, position, base, watts, side, rgb in rows:
        aim = -np.array(base) / np.linalg.norm(base)
        first = np.cross(aim, (0.0, 0.0, 1.0))
        first /= np.linalg.norm(first)
        row[0:3] = position
        row[3:6] = first * side / 2
        row[6:9] = np.cross(first, aim) * side / 2
        row[9:12] = aim
        row[12:15] = np.array(rgb) * watts / 4
        row[15] = side * side
    toward = np.array(SUN_TOWARD) / np.linalg.norm(SUN_TOWARD)
    first = np.cross(toward, (0.0, 0.0, 1.0))
    first /= np.linalg.norm(first)
    sun = lamps[_SUN]
    sun[0:3] = toward
    sun[3:6] = first * SUN_SPREAD
    sun[6:9] = np.cross(first, toward) * SUN_SPREAD
    sun[12:15] = SUN_STRENGTH
    sun[15] = 1.0
    return lamps


@njit(cache=True, fastmath=True)
def shade_masks(solids, lamps):
    """(4, cells, cells) bit masks: which solids may stand between a cell of the table and each lamp.

    A solid counts where its bounding sphere, grown by the radius of the cell and of the lamp, meets the line between
    the two middles: every line between two of their points stays within that distance of it.
    """
    masks = np.zeros((_LAMPS, _CELLS, _CELLS), np.int64)
    for k in range(_LAMPS):
        side = math.sqrt(lamps[k, 15])
        for i in range(solids.shape[0]):
            cx, cy, cz = solids[i, X], solids[i, Y], solids[i, Z]
            for row in range(_CELLS):
                py = (row + 0.5) * _CELL - _REACH
                for column in range(_CELLS):
                    px = (column + 0.5) * _CELL - _REACH
                    if k == _SUN:
                        lx, ly, lz = lamps[k, 0], lamps[k, 1], lamps[k, 2]
                        # A corner of the sun, from the far side of the solid (within 3 times its height).
                        grow = 0.71 * _CELL + 1.4143 * SUN_SPREAD * 3.0 * cz
                    else:
                        lx, ly, lz = lamps[k, 0] - px, lamps[k, 1] - py, lamps[k, 2]
                        grow = 0.71 * max(_CELL, side)
                    along = ((cx - px) * lx + (cy - py) * ly + cz * lz) / (lx * lx + ly * ly + lz * lz)
                    ax = cx - px - along * lx
                    ay = cy - py - along * ly
                    az = cz - along * lz
                    reach = solids[i, BOUND] + grow
                    if ax * ax + ay * ay + az * az < reach * reach:
                        masks[k, row, column] |= 1 << i
    return masks


@njit(cache=True, fastmath=True)
def bounce_light(solids, lamps):
    """(n + 1, 3): light that the table about each solid throws up, without shadows; the last row is far away."""
    found = np.zeros((solids.shape[0] + 1, 3))
    for i in range(solids.shape[0] + 1):
        px = solids[i, X] if i < solids.shape[0] else 30.0
        py = solids[i, Y] if i < solids.shape[0] else 30.0
        for k in range(_LAMPS):
            if k == _SUN:
                weight = lamps[k, 2]
            else:
                lx, ly, lz = lamps[k, 0] - px, lamps[k, 1] - py, lamps[k, 2]
                square = lx * lx + ly * ly + lz * lz
                weight = lz * max(-(lx * lamps[k, 9] + ly * lamps[k, 10] + lz * lamps[k, 11]), 0.0) / (square * square)
            for c in range(3):
                found[i, c] += weight * lamps[k, 12 + c] * GROUND_ALBEDO / math.pi
        for c in range(3):
            found[i, c] += SKY * GROUND_ALBEDO
    return found


@njit(cache=True, fastmath=True, inline="always")
def blocked(solids, mask, ox, oy, oz, dx, dy, dz, limit):
    """Whether one of the solids in `mask` stands on the ray before `limit`."""
    i = 0
    while mask:
        if mask & 1 and near_bound(solids, i, ox, oy, oz, dx, dy, dz, limit):
            if hit(solids, i, ox, oy, oz, dx, dy, dz) < limit:
                return True
        mask >>= 1
        i += 1
    return False


@njit(cache=True, fastmath=True)
def matte_light(solids, lamps, shade, me, px, py, pz, nx, ny, nz, vx, vy, vz, u, v):
    """Lamp light at a point of a solid (`me` its number) or of the table (-1): diffuse RGB, then sheen RGB.

    (u, v) in the unit square picks the point of each lamp that shadows are tested with; (vx, vy, vz) looks back to the
    eye.
    """
    dr = dg = db = sr = sg = sb = 0.0
    half_lit = False
    everything = (1 << solids.shape[0]) - 1
    column = int((px + _REACH) / _CELL)
    row = int((py + _REACH) / _CELL)
    outside = px <= -_REACH or py <= -_REACH or column >= _CELLS or row >= _CELLS
    for k in range(_LAMPS):
        # Every lamp gets its own turn of the point, or their shadows would be noisy together.
        a = u + 0.37 * k
        b = v + 0.61 * k
        a = 2.0 * (a - math.floor(a)) - 1.0
        b = 2.0 * (b - math.floor(b)) - 1.0
        lx = lamps[k, 0] + a * lamps[k, 3] + b * lamps[k, 6]
        ly = lamps[k, 1] + a * lamps[k, 4] + b * lamps[k, 7]
        lz = lamps[k, 2] + a * lamps[k, 5] + b * lamps[k, 8]
        weight = 1.0
        if k != _SUN:
            lx -= px
            ly -= py
            lz -= pz
        square = lx * lx + ly * ly + lz * lz
        distance = math.sqrt(square)
        lx /= distance
        ly /= distance
        lz /= distance
        facing = nx * lx + ny * ly + nz * lz
        if facing <= 0.0:
            continue
        if k != _SUN:
            weight = -(lx * lamps[k, 9] + ly * lamps[k, 10] + lz * lamps[k, 11]) / square
            if weight <= 0.0:
                continue
        else:
            distance = FAR
        if me < 0:
            mask = 0 if outside else shade[k, row, column]
        else:
            mask = everything & ~(1 << me)
        if mask:
            half_lit = True
            if blocked(solids, mask, px, py, pz, lx, ly, lz, distance):
                continue
        diffuse = weight * facing / math.pi
        dr += diffuse * lamps[k, 12]
        dg += diffuse * lamps[k, 13]
        db += diffuse * lamps[k, 14]
        if me >= 0:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
            half *= half
            half *= half
            half *= half
            sheen = weight * facing * half
            sr += sheen * lamps[k, 12]
            sg += sheen * lamps[k, 13]
            sb += sheen * lamps[k, 14]
    return dr, dg, db, sr, sg, sb, half_lit


@njit(cache=True, fastmath=True)
def lamp_images(lamps, ox, oy, oz, dx, dy, dz, limit):
    """Light of the lamps that a mirror ray sees before `limit`: each a round blur as wide as the lamp and the metal's
    roughness, with the lamp's whole light in it."""
    r = g = b = 0.0
    for k in range(_LAMPS):
        if k == _SUN:
            lx, ly, lz = lamps[k, 0], lamps[k, 1], lamps[k, 2]
            distance = 1.0
            width = METAL_ALPHA * METAL_ALPHA + 0.5 * SUN_SPREAD * SUN_SPREAD
            weight = 1.0
            if limit < FAR:
                continue
        else:
            lx, ly, lz = lamps[k, 0] - ox, lamps[k, 1] - oy, lamps[k, 2] - oz
            distance = math.sqrt(lx * lx + ly * ly + lz * lz)
            if distance > limit:
                continue
            weight = -(lx * lamps[k, 9] + ly * lamps[k, 10] + lz * lamps[k, 11]) / distance**3
            width = METAL_ALPHA * METAL_ALPHA + lamps[k, 15] / (6.0 * distance * distance)
            if weight <= 0.0:
                continue
        cosine = (lx * dx + ly * dy + lz * dz) / distance
        if cosine < 0.8:
            continue
        angle = 2.0 * (1.0 - cosine)  # squared, for small ones
        weight *= math.exp(-angle / width) / (math.pi * width)
        r += weight * lamps[k, 12]
        g += weight * lamps[k, 13]
        b += weight * lamps[k, 14]
    return r, g, b


@njit(cache=True, fastmath=True)
def brushed_light(solids, lamps, me, px, py, pz, vx, vy, vz):
    """RGB lamp light from the turned top of metal thing `me`: Ward's lobe, wide along the radius and narrow across it,
    which draws the fan of streaks about the middle."""
    r = g = b = 0.0
    ax = px - solids[me, X]
    ay = py - solids[me, Y]
    radius = math.sqrt(ax * ax + ay * ay) + 1e-6
    ax /= radius
    ay /= radius
    across = BRUSHED_ACROSS + 0.02 / radius
    others = ((1 << solids.shape[0]) - 1) & ~(1 << me)
    for k in range(_LAMPS):
        lx, ly, lz = lamps[k, 0], lamps[k, 1], lamps[k, 2]
        weight = 1.0
        distance = FAR
        if k != _SUN:
            lx -= px
            ly -= py
            lz -= pz
            distance = math.sqrt(lx * lx + ly * ly + lz * lz)
            lx /= distance
            ly /= distance
            lz /= distance
            weight = -(lx * lamps[k, 9] + ly * lamps[k, 10] + lz * lamps[k, 11]) / (distance * distance)
        if weight <= 0.0 or lz <= 0.0 or vz <= 0.0:
            continue
        hx, hy, hz = lx + vx, ly + vy, lz + vz
        along = (hx * ax + hy * ay) / (BRUSHED_ALONG * hz)
        aside = (hy * ax - hx * ay) / (across * hz)
        lobe = math.exp(-along * along - aside * aside) * math.sqrt(lz / vz)
        lobe *= weight / (4.0 * math.pi * BRUSHED_ALONG * across)
        if lobe < 1e-4 or blocked(solids, others, px, py, pz, lx, ly, lz, distance):
            continue
        r += lobe * lamps[k, 12]
        g += lobe * lamps[k, 13]
        b += lobe * lamps[k, 14]
    return r, g, b
