"""What is pasted into photos: shapes, glyphs of an open font, and cut-outs of one's own, as masks and colours."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, UnidentifiedImageError

from shards.edits.grammar import COLORS, GLYPHS, NAMES
from shards.errors import DataError
from shards.format.retries import retried

DRAWN = 192  # pixels a side of a mask before it is shrunk
CONTOUR = 0.04  # of the side: a rim in another tone, so that a white thing shows on a white wall
RGB = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 214, 40), "green": (46, 160, 67),
    "blue": (40, 90, 220), "purple": (128, 60, 180), "pink": (245, 130, 180), "white": (244, 244, 244),
    "black": (24, 24, 24),
}  # fmt: skip
assert tuple(RGB) == COLORS
LARGEST_CUTOUT = 4096  # pixels a side


@dataclass(frozen=True)
class Cutouts:
    """A folder of PNGs with transparency. Their names are those of the files: "coffee_mug.png" is a "coffee mug"."""

    folder: Path

    def names(self) -> tuple[str, ...]:
        """The names, sorted. DataError for a folder without PNGs, and for a name that captions cannot have."""
        return tuple(sorted(self.files()))

    def files(self) -> dict[str, Path]:
        """Name -> file, as they were at first sight."""
        return _files(self.folder)

    def digests(self) -> dict[str, str]:
        """Name -> SHA-256 of the file; DataError for one that is no cut-out."""
        found = {}
        for name, path in self.files().items():
            _cutout(path)
            found[name] = hashlib.sha256(_bytes(path)).hexdigest()
        return found


@lru_cache(maxsize=8)
def _files(folder: Path) -> dict[str, Path]:
    try:
        paths = retried(lambda: sorted(folder.glob("*.[pP][nN][gG]")), folder)
    except OSError as error:
        raise DataError(f"--cutouts {folder} cannot be read ({error.strerror})") from None
    found: dict[str, Path] = {}
    for path in paths:
        name = " ".join(re.split(r"[\s_-]+", path.stem.lower())).strip()
        if not re.fullmatch(r"[^\W\d_]+(?: [^\W_]+){0,3}", name):
            raise DataError(f"{path}: its name must be one to four words, as in coffee_mug.png: rename it")
        if name in found:
            raise DataError(f"{path} and {found[name].name} have the same name: rename one")
        found[name] = path
    if not found:
        raise DataError(f"--cutouts {folder} has no .png: name a folder of PNGs with transparency")
    return found


def picture_of(
    name: str, color: str | None, shade: int, pixels: int, turn: int, cutouts: Cutouts | None
) -> Image.Image:
    """A thing as RGBA, its longer side `pixels` before it is turned by `turn` degrees.

    `shade` is added to the colour, -16 to 16 levels. Cut-outs have the colours of their file.
    """
    if color is None:
        assert cutouts is not None, "a thing without a colour is a cut-out"
        return _fitted(_cutout(cutouts.files()[name]), pixels, turn)
    body, whole = _masks(name)
    light = [min(255, max(0, level + shade)) for level in RGB[color]]
    rim = [level * 2 // 5 for level in light] if sum(light) > 200 else [level // 2 + 120 for level in light]
    filled = Image.composite(Image.new("RGB", body.size, tuple(light)), Image.new("RGB", body.size, tuple(rim)), body)
    filled.putalpha(whole)
    return _fitted(filled, pixels, turn)


def _fitted(picture: Image.Image, pixels: int, turn: int) -> Image.Image:
    """An RGBA picture turned and shrunk. Colours are weighed by their opacity, so that no edge gets a foreign tone."""
    picture = picture.convert("RGBa")
    picture = picture.reduce(
        max(1, max(picture.size) // (2 * pixels))
    )  # what is turned is small, or it takes most of the time
    scale = pixels / max(picture.size)
    if turn:
        picture = picture.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR).convert("RGBA")


@lru_cache(maxsize=64)
def _masks(name: str) -> tuple[Image.Image, Image.Image]:
    """The body of a shape or glyph, and body and rim together: "L" images of one size."""
    rim = round(CONTOUR * DRAWN)
    body = Image.new("L", (DRAWN + 4 * rim, DRAWN + 4 * rim))
    inner = _glyph(GLYPHS[name]) if name in GLYPHS else _shape(name)
    body.paste(inner, ((body.width - inner.width) // 2, (body.height - inner.height) // 2))
    whole = body
    for _ in range(rim):  # a filter of 3x3 so often is one of all that width, and sooner done
        whole = whole.filter(ImageFilter.MaxFilter(3))
    whole = whole.filter(ImageFilter.GaussianBlur(1))
    box = whole.getbbox()
    return body.crop(box), whole.crop(box)


def _shape(name: str) -> Image.Image:
    side = 4 * DRAWN
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    last, middle = side - 1, side / 2

    def star(points: int, inner: float) -> list[tuple[float, float]]:
        radii = [middle * (inner if number % 2 else 1.0) for number in range(2 * points)]
        angles = [math.pi * (number / points - 0.5) for number in range(2 * points)]
        return [(middle + r * math.cos(a), middle + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]

    if name == "circle":
        draw.ellipse((0, 0, last, last), fill=255)
    elif name == "ring":
        draw.ellipse((0, 0, last, last), fill=255)
        draw.ellipse((side * 0.24, side * 0.24, side * 0.76, side * 0.76), fill=0)
    elif name == "square":
        draw.rectangle((side * 0.06, side * 0.06, side * 0.94, side * 0.94), fill=255)
    elif name == "triangle":
        draw.polygon([(middle, 0), (last, side * 0.87), (0, side * 0.87)], fill=255)
    elif name == "star":
        draw.polygon(star(5, 0.42), fill=255)
    else:
        assert name == "cross", name
        draw.rectangle((side * 0.36, 0, side * 0.64, last), fill=255)
        draw.rectangle((0, side * 0.36, last, side * 0.64), fill=255)
    return image.resize((DRAWN, DRAWN), Image.Resampling.BOX)


def _glyph(letter: str) -> Image.Image:
    """A glyph of the font, as large as fits."""
    font = ImageFont.truetype(str(font_file()), 2 * DRAWN)
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), letter, font=font, fill=255)
    image = image.crop(image.getbbox())
    scale = DRAWN / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)


@lru_cache(maxsize=1)
def font_file() -> Path:
    """DejaVu Sans as matplotlib brings it; DataError without matplotlib."""
    found = importlib.util.find_spec("matplotlib")  # not imported: that takes a second
    if found is None or not found.submodule_search_locations:
        raise DataError("edits draws glyphs of the font that comes with matplotlib: pip install matplotlib")
    return Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


def _bytes(path: Path) -> bytes:
    try:
        return retried(path.read_bytes, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


@lru_cache(maxsize=256)
def _cutout(path: Path) -> Image.Image:
    """A cut-out as RGBA, without its empty margin and at most DRAWN pixels a side."""
    try:
        with Image.open(io.BytesIO(_bytes(path)), formats=("PNG",)) as image:
            if max(image.size) > LARGEST_CUTOUT:
                raise DataError(f"{path} has more than {LARGEST_CUTOUT} pixels a side: make it smaller")
            picture = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no PNG that can be read: make it anew, or take it away") from None
    opacity = picture.getchannel("A").tobytes()
    low, high = min(opacity), max(opacity)
    if low == 255 or high < 128:
        why = "no transparent pixel" if low == 255 else "no opaque pixel"
        raise DataError(f"{path} has {why}: a cut-out is a thing on a transparent ground")
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((DRAWN, DRAWN), Image.Resampling.LANCZOS)
    return picture


def names_of(cutouts: Cutouts | None) -> tuple[str, ...]:
    """What can be pasted."""
    return NAMES if cutouts is None else cutouts.names()
