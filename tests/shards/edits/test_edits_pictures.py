"""Each kind's truth against the pixels of its two images."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from testing.photos import made_up_photo

from shards.edits.grammar import GLOBAL, LOCAL, NAMES, PLACES
from shards.edits.pictures import draw_pair, encoded, open_photo, possible_kinds
from shards.edits.plans import GAMMA, MOVED, SCALED, SHARES, View, draw_kind, draw_plan
from shards.edits.things import names_of, picture_of
from shards.errors import DataError
from shards.images import masks
from shards.images.decode import decode_image

SIZE = (192, 160)
PHOTOS = 3


def pairs(kind: str, size=SIZE):
    """Plans of a kind with their photos, their images, and those of the same plan without a change."""
    for number in range(PHOTOS):
        photo, plan = made_up_photo(number), draw_plan(7, number, number, kind, NAMES)
        plain = replace(plan, kind="none", thing=None, then=None, view=replace(plan.view, angle=0.0, mirrored=False))
        yield plan, *(np.asarray(image, np.int16) for p in (plan, plain) for image in draw_pair(photo, p, size, None))


def cells(image: np.ndarray) -> np.ndarray:
    """Means of 8x8 pixels."""
    height, width = (side // 8 * 8 for side in image.shape[:2])
    return image[:height, :width].reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3))


@pytest.mark.parametrize("kind", LOCAL)
def test_the_mask_holds_what_differs_and_nothing_else(kind):
    for plan, before, after, plain_before, plain_after in pairs(kind):
        truth = plan.truth(SIZE, None)
        for role, drawn, plain in (("before", before, plain_before), ("after", after, plain_after)):
            height, width = truth["pixels"]["size"]
            assert drawn.shape == (height, width, 3)
            mask = masks.decode(truth["pixels"][role], height, width)
            differs = (drawn != plain).any(axis=2)
            assert not differs[~mask].any()
            if kind == {"before": "add", "after": "drop"}[role]:
                assert not mask.any() and truth["box"][role] is None
                continue
            assert 0.005 < mask.mean() < 0.15 and differs[mask].mean() > 0.9
            left, top, right, bottom = truth["box"][role]
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
            named = truth["to"] if kind == "move" and role == "after" else truth["object"]
            row, column = divmod(PLACES.index(named["place"]), 3)
            assert int((top + bottom) / 2 / height * 3) == row and int((left + right) / 2 / width * 3) == column
        if kind == "color":
            assert plan.then.color == truth["to"]["color"] != truth["object"]["color"] == plan.thing.color
            assert np.array_equal(cells(plain_before), cells(plain_before)) and plan.then.x == plan.thing.x


def test_an_unchanged_pair_differs_nearly_everywhere_and_by_little():
    for plan, before, after, plain_before, plain_after in pairs("none"):
        assert plan.truth(SIZE, None) == {"type": "none", "object": None, "to": None}
        assert np.array_equal(before, plain_before) and np.array_equal(after, plain_after)
        assert (before != after).any(axis=2).mean() > 0.8
        view = plan.view
        assert max(abs(view.x), abs(view.y)) <= MOVED and abs(np.log(view.scale)) <= SCALED
        assert abs(np.log(plan.gamma)) <= GAMMA and abs(before.mean() - after.mean()) < 12
        assert np.corrcoef(cells(before).ravel(), cells(after).ravel())[0, 1] > 0.5, "the same place of the photo"


@pytest.mark.parametrize("kind", ["brighter", "darker", "gray", "saturated", "blur"])
def test_light_colours_and_sharpness(kind):
    for _, before, after, plain_before, plain_after in pairs(kind):
        assert np.array_equal(before, plain_before)
        level = after.mean() - plain_after.mean()
        chroma, plain_chroma = (np.ptp(image, axis=2).mean() for image in (after, plain_after))
        detail, plain_detail = (np.abs(np.diff(image, axis=1)).mean() for image in (after, plain_after))
        holds = {
            "brighter": level > 20,
            "darker": level < -20,
            "gray": chroma < 12 < plain_chroma,
            "saturated": chroma > 1.3 * plain_chroma,
            "blur": detail < 0.7 * plain_detail and abs(level) < 1,
        }
        assert holds[kind] and sum(holds.values()) - holds["blur"] <= 1


def test_mirrored_and_cropped():
    for _, before, after, plain_before, plain_after in pairs("mirror"):
        assert np.array_equal(after, plain_after[:, ::-1]) and np.array_equal(before, plain_before)
    for plan, before, after, *_ in pairs("crop"):
        width, height = SIZE
        x, y = (0.5 + plan.view.x) * width, (0.5 + plan.view.y) * height
        half_x, half_y = width * plan.strength / 2, height * plan.strength / 2
        box = (x - half_x, y - half_y, x + half_x, y + half_y)
        assert min(box) >= 0 and box[2] <= width and box[3] <= height and plan.strength < 0.7
        part = Image.fromarray(before.astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC, box=box)
        assert np.corrcoef(cells(np.asarray(part)).ravel(), cells(after).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("angle", [90.0, 15.0, -15.0, -90.0])
@pytest.mark.parametrize("size", [(160, 160), SIZE])
def test_clockwise_is_clockwise(angle, size):
    photo = Image.new("RGB", (400, 300), "white")
    photo.paste((0, 0, 0), (0, 150, 400, 300))  # the lower half is black
    plan = replace(draw_plan(0, 1, 0, "rotate", NAMES), view=View(angle=angle), bystander=None, x=0.5, y=0.5)
    after = np.asarray(draw_pair(photo, plan, size, None)[1], np.float32)[:, :, 0]
    assert plan.change().to == {"direction": "clockwise" if angle > 0 else "counterclockwise"}
    right = after[:, size[0] // 2 :].mean() - after[:, : size[0] // 2].mean()
    upper = after[: size[1] // 2].mean() - after[size[1] // 2 :].mean()
    assert right * angle > 0 and (abs(right) > 240 and abs(upper) < 15 if abs(angle) == 90 else upper > 150)
    assert (after > 5).mean() == pytest.approx(0.5, abs=0.05), "no empty corner"


def test_turns_move_nothing_else():
    for plan, before, after, _, plain_after in pairs("rotate", (160, 160)):
        if abs(plan.view.angle) == 90:
            assert np.array_equal(after, np.rot90(plain_after, -1 if plan.view.angle > 0 else 1))
        assert before.shape == after.shape


def test_what_would_not_be_seen_is_not_done():
    photo = made_up_photo(0)
    assert set(possible_kinds(photo, SIZE)) == {"none", *LOCAL, *GLOBAL} == set(SHARES)
    assert possible_kinds(photo, SIZE, painted=False) == tuple(k for k in possible_kinds(photo, SIZE) if k != "color")
    gray = set(possible_kinds(photo.convert("L").convert("RGB"), SIZE))
    assert {"gray", "saturated"} & gray == set() and {"brighter", "blur", "mirror"} <= gray
    half = np.asarray(photo)[:, :160]
    symmetrical = possible_kinds(Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1)), SIZE)
    assert "mirror" not in symmetrical and "crop" in symmetrical
    assert set(possible_kinds(Image.new("RGB", SIZE, "white"), SIZE)) & {"brighter", "blur", "crop", "rotate"} == set()
    assert "darker" not in possible_kinds(Image.new("RGB", SIZE, "black"), SIZE)


def test_kinds_come_as_often_as_their_shares_say():
    drawn = [draw_kind(0, photo, 0, tuple(SHARES)) for photo in range(2000)]
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        assert drawn.count(kind) / len(drawn) == pytest.approx(share, abs=0.03)
    assert set(drawn) == set(SHARES)


def test_one_image_alone_does_not_tell_a_local_change():
    plans = {kind: [draw_plan(0, photo, 0, kind, NAMES) for photo in range(300)] for kind in SHARES}
    for kind in ("none", "brighter", "add"):
        assert 0.2 < sum(plan.bystander is not None for plan in plans[kind]) / 300 < 0.4
    for plan in plans["drop"]:
        if plan.bystander:
            pairs_of = zip(plan.bystander.attributes().values(), plan.thing.attributes().values(), strict=True)
            assert all(one != other for one, other in pairs_of), "each attribute singles the thing out"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_large_photo_is_read_small_and_upright(form):
    photo = made_up_photo(5, 1600, 1200)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    photo.save(buffer, form, exif=exif)
    opened = open_photo(buffer.getvalue(), SIZE)
    assert opened.size == (2 * SIZE[0], round(2 * SIZE[0] * 1600 / 1200)), "twice the width of the images"
    expected = photo.transpose(Image.Transpose.ROTATE_270).resize(opened.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(opened, np.int16) - np.asarray(expected)).mean() < 3
    if form == "JPEG":
        assert decode_image(buffer.getvalue()).shape == (1600, 1200, 3)
        assert decode_image(buffer.getvalue(), at_least=400).shape == (600, 450, 3), "three eighths: two would be 300"
    with pytest.raises(DataError, match="a photo of less than 144 by 120 pixels"):
        open_photo(encoded(made_up_photo(0, 143, 120)), SIZE)


def body_of(name: str) -> np.ndarray:
    """The bright part of a white thing, 24x24."""
    picture = picture_of(name, "white", 0, 48, 0, None)
    assert 40 <= max(picture.size) <= 50
    light = Image.new("RGB", picture.size)
    light.paste(picture, mask=picture)
    return np.asarray(light.convert("L").resize((24, 24), Image.Resampling.BOX)) > 150


def test_things_look_like_nothing_but_themselves():
    assert names_of(None) == NAMES
    bodies = {name: body_of(name) for name in NAMES}
    for name, body in bodies.items():
        assert 0.06 < body.mean() <= 1, name
        for other, its in bodies.items():
            assert ((body & its).sum() / (body | its).sum() > 0.85) == (name == other), (name, other)
        picture = np.asarray(picture_of(name, "white", 0, 48, 0, None))
        pixels = picture[picture[:, :, 3] == 255][:, :3]
        assert pixels.min() < 120 < 200 < pixels.max(), "white with a dark rim"
