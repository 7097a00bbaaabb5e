"""Rays against solids, compiled. Scalars in, scalars out: numba turns these into straight machine code.

A solid is a row of a (n, FIELDS) float64 array, see `pack`. Rays need unit directions.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

FAR = 1e9
CUBE, SPHERE, CYLINDER = 0, 1, 2
SHAPE_CODES = {"cube": CUBE, "sphere": SPHERE, "cylinder": CYLINDER}
# Columns of a packed solid: shape, centre, half extent, turn (cos, sin), bevel, bounding radius, albedo, metal flag.
KIND, X, Y, Z, HALF, COS, SIN, BEVEL, BOUND, RED, GREEN, BLUE, METAL = range(13)
FIELDS = 13
CUBE_BEVEL = 0.15  # of the half edge
CYLINDER_BEVEL = 0.05  # of the radius
HFOV_TANGENT = 16.0 / 35.0  # half the 32 mm sensor over the 35 mm lens: 49.13 degrees across

# Of a sphere; half the edge of a cube, half the height of a cylinder. CLEVR's specification divides it by sqrt(2) for
# cubes, its pictures do not: in those of CLEVR-Change an edge is as long as a sphere of that size is wide.
RADIUS = {"large": 0.7, "small": 0.35}
RGB = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}


def pack(objects) -> np.ndarray:
    """(n, FIELDS) array of the objects (`scenes.Thing`), standing on z = 0."""
    solids = np.zeros((len(objects), FIELDS))
    for row, thing in zip(solids, objects, strict=True):
        code = SHAPE_CODES[thing.shape]
        half = RADIUS[thing.size]
        bevel = half * (0.0, CYLINDER_BEVEL)[code == CYLINDER]
        bound = half
        if code == CUBE:
            bevel = half * CUBE_BEVEL
            bound = (half - bevel) * math.sqrt(3.0) + bevel
        elif code == CYLINDER:
            bound = half * math.sqrt(2.0)
        rgb = RGB[thing.color]
        row[:] = (
            code, thing.x, thing.y, half, half, math.cos(thing.rotation), math.sin(thing.rotation), bevel, bound,
            rgb[0] / 255, rgb[1] / 255, rgb[2] / 255, thing.material == "metal",
        )  # fmt: skip
    return solids


def camera_frame(camera: tuple[float, float, float]) -> np.ndarray:
    """(4, 3): position, right, up, forward of a camera that looks at the origin with the horizon level."""
    x, y, z = camera
    far = math.sqrt(x * x + y * y + z * z)
    flat = math.hypot(x, y)
    right = (-y / flat, x / flat, 0.0)
    up = (-x * z / (far * flat), -y * z / (far * flat), flat / far)
    return np.array([camera, right, up, (-x / far, -y / far, -z / far)])


@njit(cache=True, fastmath=True, inline="always")
def camera_ray(frame, x, y):
    """Unit direction from a camera through the point (x, y) of a plane at distance 1; `frame` as of `camera_frame`."""
    inverse = 1.0 / math.sqrt(1.0 + x * x + y * y)
    return (
        (frame[3, 0] + x * frame[1, 0] + y * frame[2, 0]) * inverse,
        (frame[3, 1] + x * frame[1, 1] + y * frame[2, 1]) * inverse,
        (frame[3, 2] + x * frame[1, 2] + y * frame[2, 2]) * inverse,
    )


@njit(cache=True, fastmath=True, inline="always")
def near_bound(solids, i, ox, oy, oz, dx, dy, dz, limit):
    """Whether the ray can meet the bounding sphere of solid i before `limit`."""
    cx = solids[i, X] - ox
    cy = solids[i, Y] - oy
    cz = solids[i, Z] - oz
    along = cx * dx + cy * dy + cz * dz
    bound = solids[i, BOUND]
    if along < -bound or along - bound > limit:
        return False
    return cx * cx + cy * cy + cz * cz - along * along < bound * bound


@njit(cache=True, fastmath=True)
def hit(solids, i, ox, oy, oz, dx, dy, dz):
    """Distance along the ray at which it enters solid i from outside, FAR where it does not."""
    ox -= solids[i, X]
    oy -= solids[i, Y]
    oz -= solids[i, Z]
    half = solids[i, HALF]
    kind = solids[i, KIND]
    if kind == SPHERE:
        b = ox * dx + oy * dy + oz * dz
        root = b * b - (ox * ox + oy * oy + oz * oz - half * half)
        if root <= 0.0:
            return FAR
        t = -b - math.sqrt(root)
        return t if t > 0.0 else FAR
    if kind == CYLINDER:
        return _hit_cylinder(half, ox, oy, oz, dx, dy, dz)
    c = solids[i, COS]
    s = solids[i, SIN]
    return _hit_cube(half, solids[i, BEVEL], c * ox + s * oy, c * oy - s * ox, oz, c * dx + s * dy, c * dy - s * dx, dz)


@njit(cache=True, fastmath=True, inline="always")
def first_hit(solids, mask, ox, oy, oz, dx, dy, dz, limit):
    """(distance, number) of the first of the solids in `mask` that the ray enters; (limit, -1) if none comes before."""
    found = -1
    i = 0
    while mask:
        if mask & 1 and near_bound(solids, i, ox, oy, oz, dx, dy, dz, limit):
            t = hit(solids, i, ox, oy, oz, dx, dy, dz)
            if t < limit:
                limit = t
                found = i
        mask >>= 1
        i += 1
    return limit, found


@njit(cache=True, fastmath=True)
def _hit_cylinder(half, ox, oy, oz, dx, dy, dz):
    """Upright cylinder of this radius and half height at the origin."""
    # Cap that the ray comes towards.
    if (oz > half and dz < 0.0) or (oz < -half and dz > 0.0):
        t = ((half if oz > 0.0 else -half) - oz) / dz
        px = ox + t * dx
        py = oy + t * dy
        if px * px + py * py <= half * half:
            return t
    a = dx * dx + dy * dy
    if a < 1e-12:
        return FAR
    b = ox * dx + oy * dy
    root = b * b - a * (ox * ox + oy * oy - half * half)
    if root <= 0.0:
        return FAR
    t = (-b - math.sqrt(root)) / a
    if t > 0.0 and abs(oz + t * dz) <= half:
        return t
    return FAR


@njit(cache=True, fastmath=True)
def _hit_cube(half, bevel, ox, oy, oz, dx, dy, dz):
    """Axis-aligned cube with rounded edges at the origin.

    The ray enters the sharp cube at a point; where that lies on the flat part of a face it is the answer. Else the
    solid there is the hull of spheres of radius `bevel`, so the ray is tested with the corner sphere and the three
    edge rods of that octant (by symmetry the first one, after mirroring).
    """
    tiny = 1e-12
    ix = 1.0 / (dx if abs(dx) > tiny else tiny)
    iy = 1.0 / (dy if abs(dy) > tiny else tiny)
    iz = 1.0 / (dz if abs(dz) > tiny else tiny)
    nx = -ox * ix - half * abs(ix)
    ny = -oy * iy - half * abs(iy)
    nz = -oz * iz - half * abs(iz)
    near = max(nx, ny, nz)
    far = min(-ox * ix + half * abs(ix), -oy * iy + half * abs(iy), -oz * iz + half * abs(iz))
    flat = half - bevel
    if near <= 0.0 < far:
        # From under a rounded edge: what stands on the table there is in the shade of the flat parts.
        return _hit_flat_parts(half, flat, ox, oy, oz, ix, iy, iz)
    if near > far or near <= 0.0:
        return FAR
    px = ox + near * dx
    py = oy + near * dy
    pz = oz + near * dz
    inside = (abs(px) <= flat) + (abs(py) <= flat) + (abs(pz) <= flat)
    if inside >= 2:
        return near
    if px < 0.0:
        ox, dx = -ox, -dx
    if py < 0.0:
        oy, dy = -oy, -dy
    if pz < 0.0:
        oz, dz = -oz, -dz
    best = FAR
    cx = ox - flat
    cy = oy - flat
    cz = oz - flat
    square = bevel * bevel
    xx, yy, zz = cx * cx, cy * cy, cz * cz
    xd, yd, zd = cx * dx, cy * dy, cz * dz
    b = xd + yd + zd
    root = b * b - (xx + yy + zz - square)
    if root > 0.0:
        best = -b - math.sqrt(root)
    best = _rod(best, flat, ox, dx, dy * dy + dz * dz, yd + zd, yy + zz - square)
    best = _rod(best, flat, oy, dy, dx * dx + dz * dz, xd + zd, xx + zz - square)
    return _rod(best, flat, oz, dz, dx * dx + dy * dy, xd + yd, xx + yy - square)


@njit(cache=True, fastmath=True)
def _hit_flat_parts(half, flat, ox, oy, oz, ix, iy, iz):
    """Entry into the three boxes that the flat parts of opposite faces span, (ix, iy, iz) 1 / direction; else FAR."""
    best = FAR
    for k in range(3):
        hx = half if k == 0 else flat
        hy = half if k == 1 else flat
        hz = half if k == 2 else flat
        near = max(-ox * ix - hx * abs(ix), -oy * iy - hy * abs(iy), -oz * iz - hz * abs(iz))
        far = min(-ox * ix + hx * abs(ix), -oy * iy + hy * abs(iy), -oz * iz + hz * abs(iz))
        if 0.0 < near < far:
            best = min(best, near)
    return best


@njit(cache=True, fastmath=True, inline="always")
def _rod(best, flat, origin, direction, a, b, c):
    """The nearer of `best` and the entry into an edge rod, which spans -flat..flat along its axis."""
    root = b * b - a * c
    if root > 0.0 and a > 1e-12:
        t = (-b - math.sqrt(root)) / a
        if 0.0 < t < best and abs(origin + t * direction) <= flat:
            return t
    return best


@njit(cache=True, fastmath=True)
def normal(solids, i, px, py, pz):
    """Outward unit normal of solid i at a point of its surface; rims of cylinders are turned as if rounded."""
    px -= solids[i, X]
    py -= solids[i, Y]
    pz -= solids[i, Z]
    half = solids[i, HALF]
    kind = solids[i, KIND]
    if kind == SPHERE:
        return px / half, py / half, pz / half
    flat = half - solids[i, BEVEL]
    if kind == CYLINDER:
        radius = math.sqrt(px * px + py * py) + 1e-12
        out = max(radius - flat, 0.0)
        up = math.copysign(max(abs(pz) - flat, 0.0), pz)
        length = math.sqrt(out * out + up * up) + 1e-12
        out /= length * radius
        return px * out, py * out, up / length
    c = solids[i, COS]
    s = solids[i, SIN]
    qx = c * px + s * py
    qy = c * py - s * px
    qx = math.copysign(max(abs(qx) - flat, 0.0), qx)
    qy = math.copysign(max(abs(qy) - flat, 0.0), qy)
    qz = math.copysign(max(abs(pz) - flat, 0.0), pz)
    length = math.sqrt(qx * qx + qy * qy + qz * qz) + 1e-12
    qx /= length
    qy /= length
    return c * qx - s * qy, s * qx + c * qy, qz / length


@njit(cache=True, fastmath=True)
def tile_masks(solids, frame, width, height, tile):
    """(rows, columns) bit masks of the solids that rays of each tile of tile x tile pixels can meet."""
    rows = (height + tile - 1) // tile
    columns = (width + tile - 1) // tile
    masks = np.zeros((rows, columns), np.int64)
    step = 2.0 * HFOV_TANGENT / width
    for i in range(solids.shape[0]):
        cx = solids[i, X] - frame[0, 0]
        cy = solids[i, Y] - frame[0, 1]
        cz = solids[i, Z] - frame[0, 2]
        right = cx * frame[1, 0] + cy * frame[1, 1] + cz * frame[1, 2]
        up = cx * frame[2, 0] + cy * frame[2, 1] + cz * frame[2, 2]
        depth = cx * frame[3, 0] + cy * frame[3, 1] + cz * frame[3, 2]
        square = right * right + up * up + depth * depth - solids[i, BOUND] ** 2
        for row in range(rows):
            for column in range(columns):
                # The tile's rays lie within a cone about its middle; the solid's within one about its centre.
                u = ((column + 0.5) * tile - 0.5 * width) * step
                v = (0.5 * height - (row + 0.5) * tile) * step
                inverse = 1.0 / math.sqrt(1.0 + u * u + v * v)
                spread = 0.7072 * tile * step * inverse
                along = (right * u + up * v + depth) * inverse
                if square <= 0.0:
                    masks[row, column] |= 1 << i
                elif along > 0.0:
                    # sin of the angle between the axes against sin(solid + tile) <= sin(solid) + sin(tile)
                    distance = math.sqrt(square + solids[i, BOUND] ** 2)
                    away = math.sqrt(max(distance * distance - along * along, 0.0))
                    if away <= solids[i, BOUND] + spread * distance:
                        masks[row, column] |= 1 << i
    return masks
