"""The two images of a pair, made from a photo by a plan; and what a photo has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, ImageEnhance, ImageFilter

from shards.edits.grammar import GLOBAL, LOCAL
from shards.edits.plans import NONE, STRAIGHT, STRENGTHS, Pasted, Plan, Size, View, corner_of, located
from shards.edits.things import Cutouts, picture_of
from shards.errors import DataError
from shards.images.decode import decode_image, jpeg_or_png

JPEG_QUALITY = 92
KEPT = 2.0  # a photo is worked on at so many times the size of the images, at most
SMALLEST = 0.75  # the largest frame in a photo has this share of the images' size, at least
# By how many levels of 255 the weakest change of a kind must alter a photo on average. What is less than a little
# other light would do is not to be seen: a gray photo cannot turn gray, nor a symmetrical one be mirrored.
LEAST = {
    "brighter": 14.0, "darker": 14.0, "gray": 7.0, "saturated": 7.0, "blur": 2.0, "crop": 10.0, "rotate": 10.0,
    "mirror": 10.0,
}  # fmt: skip
_LOOK = 48  # pixels a side at which that is measured; blur at the size of the images


def open_photo(data: bytes, size: Size) -> Image.Image:
    """A photo from the bytes of its file, upright, shrunk to what images of `size` need.

    DataError where it cannot be decoded, or is too small.
    """
    pixels = decode_image(jpeg_or_png(data), at_least=round(KEPT * max(size)))
    height, width = pixels.shape[:2]
    room = min(width / size[0], height / size[1])
    if room < SMALLEST:
        least = " by ".join(str(round(SMALLEST * side)) for side in size)
        raise DataError(f"a photo of less than {least} pixels")
    photo = Image.fromarray(pixels)
    if room <= KEPT:
        return photo
    shrunk = (round(width * KEPT / room), round(height * KEPT / room))
    return photo.resize(shrunk, Image.Resampling.BICUBIC, reducing_gap=2.0)


def possible_kinds(photo: Image.Image, size: Size, painted: bool = True) -> tuple[str, ...]:
    """The kinds of change that would be seen of this photo, "none" and those of pasted things among them."""
    small = photo.resize((_LOOK, _LOOK), Image.Resampling.BOX)
    plain = np.asarray(small, np.float32)
    found = [NONE, *(kind for kind in LOCAL if painted or kind != "color")]
    for kind in GLOBAL:
        if kind == "blur":
            scaled = photo.convert("L").resize(size, Image.Resampling.BOX)
            changed, before = _effect(scaled, kind, STRENGTHS[kind][0]), np.asarray(scaled, np.float32)
        else:
            changed, before = _weakest(small, kind), plain
        difference = np.abs(np.asarray(changed, np.float32) - before)
        if kind in ("gray", "saturated"):
            difference = difference.max(axis=2)
        if difference.mean() >= LEAST[kind]:
            found.append(kind)
    return tuple(found)


def _weakest(small: Image.Image, kind: str) -> Image.Image:
    """The weakest change of a kind, on a small square copy."""
    low, high = STRENGTHS[kind]
    if kind == "mirror":
        return small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "rotate":
        return small.transpose(Image.Transpose.ROTATE_90)
    if kind == "crop":
        margin = _LOOK * (1 - high) / 2
        return small.resize(small.size, Image.Resampling.BICUBIC, box=(margin, margin, _LOOK - margin, _LOOK - margin))
    return _effect(small, kind, high if kind == "brighter" else low)


def draw_pair(photo: Image.Image, plan: Plan, size: Size, cutouts: Cutouts | None) -> tuple[Image.Image, Image.Image]:
    """The first and the second image, RGB of `size`."""
    first, second = plan.shown()
    before = _seen(photo, plan, STRAIGHT, size, first, cutouts)
    after = _seen(photo, plan, plan.view, size, second, cutouts)
    if plan.kind in STRENGTHS:
        after = _effect(after, plan.kind, plan.strength)
    return before, _relit(after, plan.gamma, plan.gains)


def encoded(image: Image.Image) -> bytes:
    """An image as JPEG."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
    )


@dataclass(frozen=True)
class _Frame:
    """The frame of the first image in a photo: its centre, and how many pixels of the photo one of the image is."""

    x: float
    y: float
    unit: float


def _frame(photo: Image.Image, plan: Plan, size: Size) -> _Frame:
    """As large as drawn, or as leaves room for what the second image sees."""
    ways = [view.reach(size) for view in (STRAIGHT, plan.view)]
    reach_x, reach_y = (max(way[axis] for way in ways) for axis in (0, 1))
    largest = min(photo.width / size[0], photo.height / size[1])
    unit = min(plan.zoom * largest, photo.width / (2 * reach_x), photo.height / (2 * reach_y))
    x = reach_x * unit + plan.x * max(0.0, photo.width - 2 * reach_x * unit)
    y = reach_y * unit + plan.y * max(0.0, photo.height - 2 * reach_y * unit)
    return _Frame(x, y, unit)


def _seen(
    photo: Image.Image, plan: Plan, view: View, size: Size, things: Sequence[Pasted], cutouts: Cutouts | None
) -> Image.Image:
    """What a view sees of a photo with things in it."""
    frame, canvas = _frame(photo, plan, size), view.canvas(size)
    middle = frame.x + view.x * size[0] * frame.unit, frame.y + view.y * size[1] * frame.unit
    half = [side * view.scale * frame.unit / 2 for side in canvas]
    box = (
        max(0.0, middle[0] - half[0]),
        max(0.0, middle[1] - half[1]),
        min(float(photo.width), middle[0] + half[0]),
        min(float(photo.height), middle[1] + half[1]),
    )
    image = photo.resize(canvas, Image.Resampling.BICUBIC, box=box)
    for thing in things:
        x, y, side = located(thing, view, size)
        drawn = picture_of(thing.shape, thing.color, thing.shade, side, thing.turn, cutouts)
        image.paste(drawn, corner_of(x, y, drawn.size, canvas), drawn)
    if view.angle:
        image = _turned(image, view.angle, size)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.mirrored else image


def _turned(image: Image.Image, angle: float, size: Size) -> Image.Image:
    """The middle of a picture that was turned clockwise by `angle` degrees."""
    if abs(angle) == 90:
        return image.transpose(Image.Transpose.ROTATE_270 if angle > 0 else Image.Transpose.ROTATE_90)
    image = image.rotate(-angle, Image.Resampling.BICUBIC)
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def _effect(image: Image.Image, kind: str, strength: float) -> Image.Image:
    """A change of the whole image that moves nothing."""
    if kind in ("brighter", "darker"):
        return _relit(image, strength, (1.0, 1.0, 1.0))
    if kind in ("gray", "saturated"):
        return ImageEnhance.Color(image).enhance(strength)
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength * min(image.size)))
    return image


def _relit(image: Image.Image, gamma: float, gains: Sequence[float]) -> Image.Image:
    """Each level v of 255 becomes 255 (v / 255)^gamma, times the gain of its colour."""
    levels = np.outer(gains, 255 * (np.arange(256) / 255) ** gamma)
    return image.point(np.rint(np.minimum(levels, 255)).astype(int).ravel().tolist())
