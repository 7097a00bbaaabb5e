"""What the page is told of a pair: the caption in numbers and words, and images that every browser can draw."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from idc.backbone.canvas import glow
from idc.backbone.pixels import ImageError, decode
from idc.captioner import Captioner
from idc.captioning.results import Caption
from idc.web.uploads import ROLES

LONGEST, THUMBNAIL = 1400, 360  # pixels of the longer side, of an image on the page and of an example's
MAP = 480  # the same of a map: it is smooth, and the browser enlarges it
EDGE = 3  # percent of the width that stay on either side of the line
CLEAR = 8  # percent between the line and what it should not cut, if there is room
SAME = 0.02  # of all that maps show: a difference that nobody sees
QUALITY = 88  # of JPEG


def read(data: bytes, role: str) -> np.ndarray:
    """uint8 (H, W, 3) of a file's bytes. ImageError naming the role."""
    try:
        return decode(data)
    except ImageError as error:
        raise ImageError(f"the image {role} cannot be read: {error}") from None


def answer(captioner: Captioner, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """A pair of images (H, W, 3) captioned, ready for JSON."""
    caption = captioner.caption(before, after, maps=True)
    shown: dict[str, dict[str, Any]] = {}
    maps: list[np.ndarray] = []
    for number, (role, pixels) in enumerate(zip(ROLES, (before, after), strict=True)):
        height, width = pixels.shape[:2]
        scale = min(1.0, MAP / max(height, width))
        where = captioner.strength(caption, number, max(1, round(height * scale)), max(1, round(width * scale)))
        maps.append(where)
        shown[role] = {
            "width": width,
            "height": height,
            "image": address(jpeg(pixels, LONGEST), "jpeg"),
            "map": address(_png(glow(where)), "png") if where.any() else None,
        }
    return {
        "sentence": caption.text,
        "alternatives": [{"text": text, "probability": math.exp(score)} for text, score in caption.alternatives],
        "changed_probability": caption.changed_probability,
        "unfamiliarity": caption.unfamiliarity,
        "familiar": caption.familiar,
        "familiarity": familiarity(caption),
        "images": shown,
        "line": line(*maps),
    }


def line(before: np.ndarray, after: np.ndarray) -> int:
    """Where the line between the images begins, in percent of their width: where most of their maps (H, W) is seen.

    `before` is seen left of it and `after` right of it. Often what a sentence is about is in one image alone.
    """
    places = np.arange(EDGE, 101 - EDGE)
    left, right = (
        np.interp(places / 100, np.linspace(0, 1, where.shape[1] + 1), np.cumsum([0.0, *where.sum(0) / where.size]))
        for where in (before, after)
    )
    seen = left - right  # and all of `after`, wherever the line is
    good = places[seen >= seen.max() - SAME * float(left.max() + right.max())]
    clear = good[np.isin(good - CLEAR, good) & np.isin(good + CLEAR, good)]
    best = clear if len(clear) else good
    return int(best[np.abs(best - 50).argmin()])


def familiarity(caption: Caption) -> str:
    """How familiar the pair is, in words."""
    if caption.unfamiliarity is None:
        return "Not known: this model carries no calibration."
    if caption.familiar:
        return "Like the pairs that the model was trained on."
    return "Unlike the pairs that the model was trained on. Take the sentence as a guess."


def jpeg(pixels: np.ndarray, longest: int) -> bytes:
    """An image (H, W, 3) as a JPEG with at most so many pixels on its longer side."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def address(data: bytes, kind: str) -> str:
    """An image as the address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
