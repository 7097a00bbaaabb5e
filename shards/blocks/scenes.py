"""Scenes of solids on a table and triples of them: before, after (one thing changed), distractor (the camera moved).

Everything is a pure function of (seed, index): the same triple comes out in any process, in any order.
Lengths are in scene units: the objects stand in the square x, y in (-3, 3), large ones have radius 0.7.
The numbers follow the published CLEVR and CLEVR-Change set-up (Johnson et al. 2017; Park et al. 2019).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shards.blocks.geometry import RADIUS
from shards.blocks.visibility import object_pixels

SIZES = ("large", "small")
COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS = ("rubber", "metal")
SHAPES = ("cube", "sphere", "cylinder")
ATTRIBUTES: dict[str, tuple[str, ...]] = {"size": SIZES, "color": COLORS, "material": MATERIALS, "shape": SHAPES}
CLASSES = tuple(  # the 96 kinds of object, as attribute values in the order of ATTRIBUTES
    dict(zip(ATTRIBUTES, values, strict=True)) for values in itertools.product(*ATTRIBUTES.values())
)
CHANGE_TYPES = ("color", "material", "add", "drop", "move")
IMAGES = ("before", "after", "distractor")

CAMERA_BASE = (7.481, -6.508, 5.344)
REACH = 1.0  # by which the places of camera and lamps vary along each axis
LAMP_BASES = ((6.447, -2.905, 4.258), (-1.169, 2.646, 5.816), (-4.671, -4.014, 3.011))  # key, back, fill
FEWEST, MOST = 3, 10
AREA = 3.0
MIN_GAP = 0.25
AXIS_MARGIN = 0.4
MIN_MOVE = 1.0
# Visible pixels at 320x240. CLEVR asks for 200 of every object but counts them in a larger picture for the change data.
MIN_PIXELS_CHANGED = 200
MIN_PIXELS_ANY = 100
_COUNT_WIDTH = 160  # the id picture is counted at this width and scaled up

_TRIPLE_STREAM, _CLASS_STREAM = 1, 2


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` is where it stands, `rotation` its turn about the vertical in radians."""

    size: str
    color: str
    material: str
    shape: str
    x: float
    y: float
    rotation: float

    def attributes(self) -> dict[str, str]:
        """Size, colour, material and shape, in the order they are spoken."""
        return {"size": self.size, "color": self.color, "material": self.material, "shape": self.shape}


@dataclass(frozen=True)
class Scene:
    """What an image shows: objects, place of the camera (it looks at the origin), of the key, back and fill lamps."""

    objects: tuple[Thing, ...]
    camera: tuple[float, float, float]
    lamps: tuple[tuple[float, float, float], ...]

    def matches(self, attributes: dict[str, str]) -> list[int]:
        """Indices of the objects that have all the given attribute values."""
        return [i for i, thing in enumerate(self.objects) if all(getattr(thing, k) == v for k, v in attributes.items())]

    def singled_out(self, thing: Thing) -> bool:
        """Whether no other object has the same four attributes."""
        return len(self.matches(thing.attributes())) == 1


@dataclass(frozen=True)
class Change:
    """The one difference between two images: `object` as it is in the first (in the second where it was added).

    `type` is a member of CHANGE_TYPES or "none" (then `object` is None); `to` holds the new colour or material.
    """

    type: str
    object: Thing | None = None
    to: dict[str, str] | None = None

    def truth(self) -> dict:
        """As plain data, without the position: what records carry and `grammar.agrees` compares with."""
        return {
            "type": self.type,
            "object": self.object.attributes() if self.object is not None else None,
            "to": dict(self.to) if self.to else None,
        }


@dataclass(frozen=True)
class Triple:
    """Three images of one scene; `change` is the difference from before to after."""

    before: Scene
    after: Scene
    distractor: Scene
    change: Change

    def scene(self, image: str) -> Scene:
        """The scene called "before", "after" or "distractor"."""
        return {"before": self.before, "after": self.after, "distractor": self.distractor}[image]

    def changed_object(self, image: str) -> int | None:
        """The number of the changed object among those of an image; None where that image does not have it."""
        if self.change.type == "add":
            return len(self.after.objects) - 1 if image == "after" else None
        if self.change.type == "drop" and image == "after":
            return None
        assert self.change.object is not None
        return self.before.objects.index(self.change.object)

    def between(self, first: str, second: str) -> Change | None:
        """The change from image `first` to image `second`; type "none" where only the camera differs.

        None where the changed object shares its four attributes with another in the image a sentence would refer to.
        """
        if (first == "after") == (second == "after"):
            return Change("none")
        if second == "after":
            return self.change
        change = self.change
        thing = change.object
        assert thing is not None
        if change.type == "add":
            return Change("drop", thing)
        if change.type == "drop":
            return Change("add", thing)
        if change.type == "move":
            moved = self.after.objects[self.before.objects.index(thing)]
            return Change("move", moved)
        assert change.to is not None
        new = _with(thing, change.to)
        if not self.after.singled_out(new):
            return None
        return Change(change.type, new, {change.type: getattr(thing, change.type)})


def ground_directions(camera: tuple[float, float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Unit vectors "right" and "behind" (away from the camera) in the ground plane; the camera looks at the origin."""
    length = math.hypot(camera[0], camera[1])
    behind = (-camera[0] / length, -camera[1] / length)
    return (behind[1], -behind[0]), behind


def make_triple(seed: int, index: int, aspect: float = 4 / 3, camera: float = REACH) -> Triple:
    """Triple number `index`. `aspect` (width / height) is that of the images: it decides what is in the frame.

    The camera's place varies by up to `camera` along each axis: that of `before`, and from there the other two's.
    """
    rng = np.random.default_rng((seed, _TRIPLE_STREAM, index))
    # Drawn once, not at each try: else crowded scenes, which fail more often, would be rare.
    kind = CHANGE_TYPES[rng.integers(len(CHANGE_TYPES))]
    count = int(rng.integers(FEWEST, MOST + 1))
    while True:
        triple = _attempt(rng, kind, count, aspect, camera)
        if triple is not None:
            return triple


def make_class_scene(seed: int, class_index: int, number: int, aspect: float = 4 / 3, camera: float = REACH) -> Scene:
    """A scene with one object of class `class_index` (see CLASSES) at a random place; `camera` as of `make_triple`."""
    rng = np.random.default_rng((seed, _CLASS_STREAM, class_index, number))
    while True:
        place = _jitter(rng, CAMERA_BASE, camera)
        lamps = tuple(_jitter(rng, base) for base in LAMP_BASES)
        x, y, turn = rng.uniform(-1.0, 1.0, 3)
        thing = Thing(**CLASSES[class_index], x=AREA * x, y=AREA * y, rotation=math.pi * turn)
        scene = Scene((thing,), place, lamps)
        if visible_pixels(scene, aspect)[0] >= MIN_PIXELS_CHANGED:
            return scene


def visible_pixels(scene: Scene, aspect: float = 4 / 3) -> np.ndarray:
    """(n,) visible pixels of each object, scaled to a picture of 320 pixels width (so 320x240 at aspect 4/3)."""
    height = round(_COUNT_WIDTH / aspect)
    return object_pixels(scene, _COUNT_WIDTH, height) * (320 / _COUNT_WIDTH) ** 2


def _attempt(rng: np.random.Generator, kind: str, count: int, aspect: float, reach: float) -> Triple | None:
    """One try at a triple; None when the objects do not fit, are hidden or cannot be told apart."""
    camera = _jitter(rng, CAMERA_BASE, reach)
    lamps = tuple(_jitter(rng, base) for base in LAMP_BASES)
    objects: list[Thing] = []
    for _ in range(count):
        thing = _place(rng, objects, camera, _draw(rng))
        if thing is None:
            return None
        objects.append(thing)
    before = Scene(tuple(objects), camera, lamps)
    if visible_pixels(before, aspect).min() < MIN_PIXELS_ANY:
        return None
    changed = _change(rng, before, kind)
    if changed is None:
        return None
    change, after_objects = changed
    after = Scene(after_objects, _jitter(rng, camera, reach), lamps)
    distractor = Scene(before.objects, _jitter(rng, camera, reach), lamps)
    triple = Triple(before, after, distractor, change)
    return triple if _changed_is_visible(triple, aspect) else None


def _change(rng: np.random.Generator, before: Scene, kind: str) -> tuple[Change, tuple[Thing, ...]] | None:
    """A change of this kind and the objects after it; None when there is no such change here."""
    objects = before.objects
    if kind == "add":
        new = _place(rng, list(objects), before.camera, _draw(rng))
        if new is None or before.matches(new.attributes()):
            return None
        return Change("add", new), (*objects, new)
    index = int(rng.integers(len(objects)))
    thing = objects[index]
    if not before.singled_out(thing):
        return None
    rest = [other for other in objects if other is not thing]
    if kind == "drop":
        return Change("drop", thing), tuple(rest)
    if kind == "move":
        new = _place(rng, rest, before.camera, thing, away_from=thing)
        if new is None:
            return None
        to = None
    else:
        others = [value for value in ATTRIBUTES[kind] if value != getattr(thing, kind)]
        to = {kind: others[rng.integers(len(others))]}
        new = _with(thing, to)
    return Change(kind, thing, to), (*objects[:index], new, *objects[index + 1 :])


def _with(thing: Thing, attributes: Mapping[str, Any]) -> Thing:
    """The thing with other attributes."""
    return replace(thing, **attributes)


def _changed_is_visible(triple: Triple, aspect: float) -> bool:
    """Whether the changed object shows in every image that has it."""
    for image in IMAGES:
        number = triple.changed_object(image)
        if number is not None and visible_pixels(triple.scene(image), aspect)[number] < MIN_PIXELS_CHANGED:
            return False
    return True


def _draw(rng: np.random.Generator) -> Thing:
    """A thing with uniform attributes and turn, not placed yet."""
    size, color, material, shape = (values[rng.integers(len(values))] for values in ATTRIBUTES.values())
    return Thing(size, color, material, shape, 0.0, 0.0, float(rng.uniform(0.0, 2.0 * math.pi)))


def _jitter(
    rng: np.random.Generator, base: tuple[float, float, float], reach: float = REACH
) -> tuple[float, float, float]:
    dx, dy, dz = rng.uniform(-reach, reach, 3)
    return (base[0] + dx, base[1] + dy, base[2] + dz)


def _place(
    rng: np.random.Generator,
    others: list[Thing],
    camera: tuple[float, float, float],
    thing: Thing,
    away_from: Thing | None = None,
) -> Thing | None:
    """The thing at a free place: a gap to its neighbours, and never nearly level with one of them seen from the camera,
    so that "left of" and "behind" are clear cut. None when 100 random places were not free."""
    right, behind = ground_directions(camera)
    places = rng.uniform(-AREA, AREA, (100, 2))
    free = np.ones(len(places), bool)
    if others:
        offset = places[:, None, :] - np.array([(other.x, other.y) for other in others])
        reach = RADIUS[thing.size] + MIN_GAP + np.array([RADIUS[other.size] for other in others])
        clear = (offset**2).sum(-1) >= reach**2
        clear &= np.abs(offset @ np.array([right, behind]).T).min(-1) >= AXIS_MARGIN
        free = clear.all(1)
    if away_from is not None:
        free &= np.hypot(places[:, 0] - away_from.x, places[:, 1] - away_from.y) >= MIN_MOVE
    hits = np.flatnonzero(free)
    if hits.size == 0:
        return None
    x, y = places[hits[0]]
    return replace(thing, x=float(x), y=float(y))
