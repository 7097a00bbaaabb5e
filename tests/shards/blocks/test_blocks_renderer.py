"""Pictures: geometry against an independent ray march, light against common sense, and the look of the real data."""

import glob
import math
import os

import numpy as np
import pytest
from PIL import Image

from shards.blocks import forget_compiled, geometry, lighting
from shards.blocks.renderer import render
from shards.blocks.scenes import CAMERA_BASE, LAMP_BASES, SHAPES, Scene, Thing, make_triple
from shards.blocks.visibility import object_pixels

RIGHT_OF_CAMERA = np.array([0.656, 0.755])


def one(shape="sphere", material="rubber", color="gray", size="large", lamps=LAMP_BASES, x=0.0, y=0.0):
    return Scene((Thing(size, color, material, shape, x, y, 0.5),), CAMERA_BASE, tuple(lamps))


def mask_of(scene, width=160, height=120):
    """Pixels of the only object, by the difference of the picture from that of the empty table's colour range."""
    frame = geometry.camera_frame(scene.camera)
    solids = geometry.pack(scene.objects)
    step = 2 * geometry.HFOV_TANGENT / width
    found = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5 - width / 2) * step, (height / 2 - row - 0.5) * step
            ray = frame[3] + x * frame[1] + y * frame[2]
            found[row, column] = geometry.hit(solids, 0, *frame[0], *(ray / np.linalg.norm(ray))) < geometry.FAR
    return found


def distance_to_solid(shape, half, bevel, points):
    """Signed distance (or a bound of it) of points to a solid at the origin."""
    if shape == "sphere":
        return np.linalg.norm(points, axis=-1) - half
    if shape == "cylinder":
        gap = np.stack([np.hypot(points[:, 0], points[:, 1]) - half, np.abs(points[:, 2]) - half], -1)
    else:
        gap = np.abs(points) - (half - bevel)
        half = bevel
        return np.linalg.norm(np.maximum(gap, 0), axis=-1) + np.minimum(gap.max(-1), 0) - bevel
    return np.linalg.norm(np.maximum(gap, 0), axis=-1) + np.minimum(gap.max(-1), 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_hit_where_a_march_along_the_distance_field_ends(shape):
    thing = Thing("large", "red", "rubber", shape, 0.4, -0.3, 0.7)
    solids = geometry.pack((thing,))
    half, bevel, centre = solids[0, geometry.HALF], solids[0, geometry.BEVEL], solids[0, 1:4]
    turn = np.array([[math.cos(0.7), math.sin(0.7), 0], [-math.sin(0.7), math.cos(0.7), 0], [0, 0, 1]])
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(2000, 3))
    origins = centre + 4 * origins / np.linalg.norm(origins, axis=1, keepdims=True)
    rays = centre + rng.uniform(-0.75, 0.75, (2000, 3)) - origins
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    marched = np.zeros(2000)
    for _ in range(200):
        marched += distance_to_solid(shape, half, bevel, (origins + marched[:, None] * rays - centre) @ turn.T)
    ends = distance_to_solid(shape, half, bevel, (origins + np.minimum(marched, 9)[:, None] * rays - centre) @ turn.T)
    found = np.array([geometry.hit(solids, 0, *o, *d) for o, d in zip(origins, rays, strict=True)])
    clear = (ends < 1e-9) | (ends > 1e-3)  # grazing rays may go either way
    assert clear.mean() > 0.98
    assert 0.2 < (found < geometry.FAR).mean() < 0.95
    assert np.array_equal((found < geometry.FAR)[clear], (ends < 1e-9)[clear])
    both = clear & (found < geometry.FAR)
    assert np.abs(found - marched)[both].max() < 1e-5
    for o, d, t in zip(origins[both][:200], rays[both], found[both], strict=False):
        normal = np.array(geometry.normal(solids, 0, *(o + t * d)))
        assert abs(np.linalg.norm(normal) - 1) < 1e-6 and normal @ d < 0.1


def test_the_table_under_the_rounded_edge_of_a_cube_is_shaded():
    solids = geometry.pack((Thing("large", "gray", "rubber", "cube", 0.0, 0.0, 0.0),))
    half, bevel = solids[0, geometry.HALF], solids[0, geometry.BEVEL]
    across = np.array([-0.6, 0.2, 0.77])
    across /= np.linalg.norm(across)
    for part, overhung in ((0.1, True), (0.5, False), (0.9, False)):  # of the way to where the sharp edge would be
        x = half - bevel + part * bevel
        assert geometry.hit(solids, 0, x, 0.1, 0.0, *across) < geometry.FAR, "the lamp is behind the cube"
        outward = geometry.hit(solids, 0, x, 0.1, 0.0, *(across * (-1, 1, 1)))
        assert (outward < geometry.FAR) == overhung, "the lamp is in front"


def test_compiled_code_is_forgotten_when_any_source_is_newer(tmp_path):
    kept = tmp_path / "__pycache__" / "kernel.nbc"
    kept.parent.mkdir()
    for path, time in ((kept, 2000), (tmp_path / "kernel.py", 1000), (tmp_path / "called.py", 1500)):
        path.touch()
        os.utime(path, (time, time))
    forget_compiled(tmp_path)
    assert kept.exists()
    os.utime(tmp_path / "called.py", (3000, 3000))
    forget_compiled(tmp_path)
    assert not kept.exists()


def test_every_shadow_is_in_the_cell_masks():
    scene = make_triple(1, 3).before
    solids, lamps = geometry.pack(scene.objects), lighting.pack_lamps(scene.lamps)
    masks = lighting.shade_masks(solids, lamps)
    everything = (1 << len(scene.objects)) - 1
    rng = np.random.default_rng(1)
    shadows = 0
    for _ in range(4000):
        x, y = rng.uniform(-6, 6, 2)
        k = rng.integers(4)
        a, b = rng.uniform(-1, 1, 2)
        target = lamps[k, 0:3] + a * lamps[k, 3:6] + b * lamps[k, 6:9]
        ray = target - (0 if k == 3 else np.array([x, y, 0]))
        distance = geometry.FAR if k == 3 else np.linalg.norm(ray)
        ray = ray / np.linalg.norm(ray)
        cell = masks[k, int((y + lighting._REACH) / lighting._CELL), int((x + lighting._REACH) / lighting._CELL)]
        blocked = lighting.blocked(solids, everything, x, y, 0.0, *ray, distance)
        shadows += blocked
        assert blocked == lighting.blocked(solids, cell, x, y, 0.0, *ray, distance)
    assert shadows > 200


@pytest.mark.parametrize("size", ("large", "small"))
def test_a_cube_is_as_wide_as_a_sphere_of_its_size(size):
    """As in the pictures of CLEVR-Change, whose specification would have its edges shorter by sqrt(2)."""
    widths = {}
    for shape in ("sphere", "cube"):
        thing = Thing(size, "gray", "rubber", shape, 0.0, 0.0, math.atan2(CAMERA_BASE[1], CAMERA_BASE[0]))
        mask = mask_of(Scene((thing,), CAMERA_BASE, tuple(LAMP_BASES)), 320, 240)
        widths[shape] = int(mask.any(0).sum())
    # The side that is turned to the camera is nearer than the middle of the sphere.
    assert 0.98 < widths["cube"] / widths["sphere"] < 1.15, widths


def test_a_picture_is_the_same_bytes_every_time():
    scene = make_triple(0, 0).before
    first = render(scene, 160, 120, 2)
    assert first.shape == (120, 160, 3) and first.dtype == np.uint8
    assert np.array_equal(first, render(scene, 160, 120, 2))
    assert not np.array_equal(first, render(make_triple(0, 1).before, 160, 120, 2))


def test_the_lamp_side_is_brighter():
    side = {}
    for name, sign in (("right", 1.0), ("left", -1.0)):
        x, y = sign * 4.0 * RIGHT_OF_CAMERA
        scene = one(lamps=((x, y, 4.0),) * 3)
        columns = np.nonzero(mask_of(scene).any(0))[0]
        middle = (columns[0] + columns[-1]) // 2
        row = render(scene, 160, 120, 2)[60 - 6].mean(-1)
        side[name] = row[columns[0] + 2 : middle].mean(), row[middle : columns[-1] - 1].mean()
    assert side["right"][1] > side["right"][0] + 5
    assert side["left"][0] > side["left"][1] + 2  # less: the lamps keep their aim, so two of them look away


def test_things_throw_shadows_away_from_the_lamps():
    x, y = 5.0 * RIGHT_OF_CAMERA
    lamps = ((x, y, 3.0),) * 3
    scene = one(lamps=lamps)
    with_thing = render(scene, 160, 120, 2).mean(-1)
    empty = render(one(lamps=lamps, x=500.0), 160, 120, 2).mean(-1)
    darker = np.where(mask_of(scene), 0, empty - with_thing)
    assert darker.max() > 25
    assert (darker > 10)[:, :75].sum() > 5 * (darker > 10)[:, 90:].sum()
    # Half shadows: no hard step between light and shade.
    assert ((darker > 3) & (darker < 20)).sum() > 30


def test_colors_and_materials_show():
    for color, channel in (("red", 0), ("green", 1), ("blue", 2)):
        for material in ("rubber", "metal"):
            scene = one(material=material, color=color)
            mean = render(scene, 160, 120, 2)[mask_of(scene)].astype(float).mean(0)
            assert mean.argmax() == channel
    shine = {}
    for material in ("rubber", "metal"):
        scene = one(material=material, color="gray")
        shine[material] = render(scene, 160, 120, 2)[mask_of(scene)].astype(float).mean(-1)
    assert shine["metal"].std() > 1.5 * shine["rubber"].std()
    assert shine["metal"].max() > 200 > shine["rubber"].max()


def test_metal_mirrors_its_neighbours():
    mirror = Thing("large", "gray", "metal", "cube", -1.0, 1.0, 0.86)
    neighbour = Thing("large", "red", "rubber", "sphere", 0.4, -0.2, 0.0)
    lone = render(Scene((mirror,), CAMERA_BASE, LAMP_BASES), 160, 120, 2).astype(int)
    pair = render(Scene((mirror, neighbour), CAMERA_BASE, LAMP_BASES), 160, 120, 2).astype(int)
    cube = mask_of(Scene((mirror,), CAMERA_BASE, LAMP_BASES)) & ~mask_of(Scene((neighbour,), CAMERA_BASE, LAMP_BASES))
    redder = (pair[..., 0] - pair[..., 1]) - (lone[..., 0] - lone[..., 1])
    assert redder[cube].max() > 20


def test_nearer_things_hide_others_from_the_count():
    direction = np.array(CAMERA_BASE[:2]) / np.linalg.norm(CAMERA_BASE[:2])
    near = Thing("large", "red", "rubber", "cube", *(1.5 * direction), 0.0)
    far = Thing("small", "blue", "rubber", "cube", 0.0, 0.0, 0.0)
    alone = object_pixels(Scene((far,), CAMERA_BASE, LAMP_BASES), 160, 120)[0]
    hidden = object_pixels(Scene((near, far), CAMERA_BASE, LAMP_BASES), 160, 120)
    assert alone > 50
    assert hidden[1] < 0.5 * alone < hidden[0]


def test_counts_agree_with_single_rays():
    for shape in SHAPES:
        scene = one(shape=shape, size="small", x=-1.0, y=0.5)
        assert object_pixels(scene, 160, 120)[0] == mask_of(scene).sum()


def test_pictures_look_like_the_real_ones(shared_data):
    files = sorted(glob.glob(str(shared_data / "clevr_change_sample" / "images" / "*.png")))
    real = np.stack([np.asarray(Image.open(file).convert("RGB").resize((120, 80), Image.BOX)) for file in files])
    ours = np.stack([render(make_triple(2, index, 1.5).before, 120, 80, 2) for index in range(40)])
    real, ours = real.astype(float), ours.astype(float)
    assert np.abs(real.mean((0, 1, 2)) - ours.mean((0, 1, 2))).max() < 6
    assert np.abs(real.std((1, 2)).mean(0) - ours.std((1, 2)).mean(0)).max() < 4
    # The table under the lamps, objects taken out by the median over pictures.
    assert np.abs(np.median(real, 0) - np.median(ours, 0)).mean() < 6
