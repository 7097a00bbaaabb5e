"""What is done to a photo: drawn from (seed, photo, number of the pair) alone, before any pixel of the pair is made.

Places are in the frame of the first image. The second is seen through a `View` of that frame: moved, scaled, for some
kinds turned or mirrored. So masks need no photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from shards.blocks.grammar import Change
from shards.edits.grammar import COLORS, DIRECTIONS, GLOBAL, LOCAL, PLACES
from shards.edits.things import Cutouts, picture_of
from shards.images import masks

Size = tuple[int, int]  # width and height of the images, pixels
NONE = "none"
# How often each kind is drawn, before those that a photo has no room for are left out.
SHARES: dict[str, float] = {NONE: 0.2, **dict.fromkeys(LOCAL, 0.11), **dict.fromkeys(GLOBAL, 0.045)}
BYSTANDER = 0.3  # share of the pairs, of any kind, with another thing in both images, which does not change
MOVED, SCALED = 0.04, 0.04  # of the second image at most: shift in shares of the frame, scale
OFF_CENTER = 0.03  # by how much a thing stands off the centre of its place, in shares of the frame
THING = (0.17, 0.23)  # longer side of a thing in shares of the frame's shorter side
TURNED = 12  # degrees by which a thing leans at most
# The strength of a change of the whole image. Gammas; a factor of the saturation; a share of the shorter side (blur)
# and of the frame (crop); degrees (rotate, quarter turns aside).
STRENGTHS = {
    "brighter": (0.45, 0.6), "darker": (1.7, 2.2), "gray": (0.0, 0.0), "saturated": (1.8, 2.4),
    "blur": (0.009, 0.014), "crop": (0.5, 0.65), "rotate": (9.0, 20.0), "mirror": (0.0, 0.0),
}  # fmt: skip
QUARTER = 0.5  # share of the turns that are by 90 degrees
GAMMA, GAIN = 0.07, 0.03  # of the second image's light at most: log of the gamma, and of each colour's gain
ZOOM = (0.76, 0.86)  # the frame as a share of the largest one that fits into the photo
_KIND, _PLAN, _CAPTIONS = 21, 22, 23  # streams of random numbers


@dataclass(frozen=True)
class Pasted:
    """A thing in the frame of the first image; x and y of its centre, and its longer side, in shares of it."""

    shape: str
    color: str | None  # None: a cut-out, which has its own
    place: str
    x: float
    y: float
    side: float  # of the frame's shorter side
    turn: int  # degrees
    shade: int  # levels that are added to its colour

    def attributes(self) -> dict[str, str]:
        """What captions can name."""
        color = {} if self.color is None else {"color": self.color}
        return {**color, "shape": self.shape, "place": self.place}


@dataclass(frozen=True)
class View:
    """How an image sees the frame: point p of it, from its centre, is the frame's shift + scale * R(angle) p.

    Shifts are in shares of the frame's width and height. A mirrored view is mirrored last. Degrees, clockwise as the
    content appears to turn.
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0
    mirrored: bool = False

    def canvas(self, size: Size) -> Size:
        """Width and height, pixels, of an upright picture that holds the turned one."""
        if self.angle % 90 == 0:
            return size if self.angle % 180 == 0 else (size[1], size[0])
        cos, sin = abs(math.cos(math.radians(self.angle))), abs(math.sin(math.radians(self.angle)))
        return math.ceil(size[0] * cos + size[1] * sin), math.ceil(size[0] * sin + size[1] * cos)

    def reach(self, size: Size) -> tuple[float, float]:
        """How far from the frame's centre it sees at most, in pixels of the first image, along x and y."""
        width, height = self.canvas(size)
        return abs(self.x) * size[0] + self.scale * width / 2, abs(self.y) * size[1] + self.scale * height / 2


STRAIGHT = View()


@dataclass(frozen=True)
class Plan:
    """One pair. `thing` is what a local change is about, as it is first, and `then` as it is afterwards."""

    kind: str
    strength: float
    thing: Pasted | None
    then: Pasted | None
    bystander: Pasted | None
    view: View
    zoom: float  # the frame as a share of the largest one, and where it lies in what room there is, 0 to 1
    x: float
    y: float
    gamma: float  # of the second image
    gains: tuple[float, float, float]

    def change(self) -> Change:
        """What captions state."""
        if self.kind == "rotate":
            return Change(self.kind, {}, {"direction": tuple(DIRECTIONS)[self.view.angle < 0]})
        if self.thing is None:
            return Change(self.kind)
        assert self.then is not None
        new = {"color": "color", "move": "place"}.get(self.kind)
        return Change(self.kind, self.thing.attributes(), {new: self.then.attributes()[new]} if new else None)

    def shown(self) -> tuple[list[Pasted], list[Pasted]]:
        """The things in the first and in the second image."""
        always = [self.bystander] if self.bystander else []
        first = [self.thing] if self.thing and self.kind != "add" else []
        second = [self.then] if self.then and self.kind != "drop" else []
        return always + first, always + second

    def truth(self, size: Size, cutouts: Cutouts | None) -> dict:
        """The change as records carry it; of a local one the pixels of the thing, and their box, in both images."""
        change = self.change()
        truth: dict = {"type": change.type, "object": dict(change.object) or None, "to": change.to}
        if self.thing is None or self.then is None:
            return truth
        pixels: dict = {"size": [size[1], size[0]]}
        boxes: dict = {}
        for role, pasted, view in (("before", self.thing, STRAIGHT), ("after", self.then, self.view)):
            if self.kind == {"before": "add", "after": "drop"}[role]:
                pixels[role], boxes[role] = "", None
                continue
            mask = mask_of(pasted, view, size, cutouts)
            rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
            pixels[role] = masks.encode(mask)
            boxes[role] = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        return truth | {"pixels": pixels, "box": boxes}


def draw_kind(seed: int, photo: int, number: int, possible: Sequence[str]) -> str:
    """The kind of a pair among those that its photo has room for. `photo` is a number that stands for its bytes."""
    shares = np.array([SHARES[kind] for kind in possible])
    rng = np.random.default_rng((seed, _KIND, photo, number))
    return possible[rng.choice(len(possible), p=shares / shares.sum())]


def caption_generator(seed: int, photo: int, number: int) -> np.random.Generator:
    """Where the wordings of a pair come from."""
    return np.random.default_rng((seed, _CAPTIONS, photo, number))


def draw_plan(seed: int, photo: int, number: int, kind: str, names: Sequence[str], painted: bool = True) -> Plan:
    """The pair of this kind; `names` of things to paste, `painted` in COLORS or, as cut-outs, with their own."""
    rng = np.random.default_rng((seed, _PLAN, photo, number))
    first, second, third = rng.permutation(len(PLACES))[:3]
    name, other = rng.permutation(len(names))[:2] if len(names) > 1 else (0, None)
    color, new, others = (COLORS[i] for i in rng.permutation(len(COLORS))[:3]) if painted else (None, None, None)
    thing = _pasted(names[name], color, int(first), rng)
    bystander = None if other is None else _pasted(names[other], others, int(second), rng)
    bystander = bystander if rng.random() < BYSTANDER else None
    goal = _pasted(names[name], color, int(third), rng)
    strength = float(rng.uniform(*STRENGTHS.get(kind, (0.0, 0.0))))
    x, y = (float(rng.uniform(-MOVED, MOVED)) for _ in range(2))
    view = View(x, y, math.exp(rng.uniform(-SCALED, SCALED)))
    direction, quarter = rng.choice((-1, 1)), rng.random() < QUARTER
    if kind == "crop":
        x, y = (float(rng.uniform(-0.3, 0.3)) * (1 - strength) for _ in range(2))
        view = View(x, y, strength)
    elif kind == "rotate":
        view = replace(view, angle=float(direction * (90.0 if quarter else strength)))
    elif kind == "mirror":
        view = replace(view, mirrored=True)
    then = thing
    if kind == "color":
        then = replace(thing, color=new)
    elif kind == "move":
        then = replace(thing, place=goal.place, x=goal.x, y=goal.y)
    is_local = kind in LOCAL
    zoom = float(rng.uniform(*ZOOM))
    x, y = float(rng.random()), float(rng.random())
    red, green, blue = (math.exp(rng.uniform(-GAIN, GAIN)) for _ in range(3))
    return Plan(
        kind, strength, thing if is_local else None, then if is_local else None, bystander, view, zoom, x, y,
        math.exp(rng.uniform(-GAMMA, GAMMA)), (red, green, blue),
    )  # fmt: skip


def _pasted(name: str, color: str | None, place: int, rng: np.random.Generator) -> Pasted:
    x, y = (float(rng.uniform(-OFF_CENTER, OFF_CENTER)) for _ in range(2))
    return Pasted(
        name, color, PLACES[place], (place % 3 + 0.5) / 3 + x,
        (place // 3 + 0.5) / 3 + y, float(rng.uniform(*THING)), int(rng.integers(-TURNED, TURNED + 1)),
        int(rng.integers(-16, 17)),
    )  # fmt: skip


def located(pasted: Pasted, view: View, size: Size) -> tuple[float, float, int]:
    """(x, y, side) in pixels, from the centre of an upright picture seen so: of the thing's centre, and its size."""
    width, height = size
    x = ((pasted.x - 0.5 - view.x) * width) / view.scale
    y = ((pasted.y - 0.5 - view.y) * height) / view.scale
    return x, y, max(2, round(pasted.side * min(size) / view.scale))


def corner_of(x: float, y: float, drawn: Size, canvas: Size) -> tuple[int, int]:
    """Left and top pixel of a drawn thing whose centre is at (x, y) from the centre of a canvas."""
    return round(canvas[0] / 2 + x - drawn[0] / 2), round(canvas[1] / 2 + y - drawn[1] / 2)


def mask_of(pasted: Pasted, view: View, size: Size, cutouts: Cutouts | None) -> np.ndarray:
    """The pixels, bool (height, width), that a thing covers at least in part; of views that are not turned."""
    assert not view.angle and not view.mirrored, "things that change are seen upright"
    x, y, side = located(pasted, view, size)
    drawn = picture_of(pasted.shape, pasted.color, pasted.shade, side, pasted.turn, cutouts).getchannel("A")
    left, top = corner_of(x, y, drawn.size, size)
    alpha = np.asarray(drawn)
    mask = np.zeros((size[1], size[0]), bool)
    inside = mask[max(0, top) : top + alpha.shape[0], max(0, left) : left + alpha.shape[1]]
    cut = alpha[max(0, -top) :, max(0, -left) :][: inside.shape[0], : inside.shape[1]]
    inside[:] = cut > 0
    return mask
