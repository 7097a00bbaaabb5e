"""What sentences say of pictures as such: a side, their light, what they frame. Augmentation must not make it false.

Words count, whatever they mean in a sentence: "the right colour" names a side here. One taken for another costs a
sample its augmentation in one step, and one overlooked makes a sentence false. Words of direction are known in some
languages beside English; those of light and framing in English alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# By how a word begins: "left" is also leftmost, lefthand, left-hand and leftwards.
_SIDES = re.compile(
    r"\b(?:left|right|clockwise|counterclockwise|anticlockwise|(?:north|south)?(?:east|west)(?:ern|erly|wards?)?\b|"
    r"link|recht|gauche|droit|izquierd|derech|sinistr|destr|esquerd|direit|лев|прав)|[左右东西東]",
    re.I,
)
_LIGHT = re.compile(
    r"\b(?:bright|dark|light|dim|dull|pale|fad(?:e|ed|ing)\b|shad(?:e|ow|y)|contrast|saturat|desaturat|expos|"
    r"colou?rful|vivid|vibrant|gr[ae]yscale|monochrom|black\s+and\s+white|sepia|tint|tone|hue|warm|cool|glow|sharp|blur)",
    re.I,
)
_FRAMING = re.compile(
    r"\b(?:crop|zoom|enlarg|shr[iu]nk|resiz|scal|rotat|tilt|turn|close|near|far|further|away|angle|camera|view|fram|edge|"
    r"border|corner|margin|shift|wide|narrow)",
    re.I,
)


def names_a_side(sentences: Iterable[str]) -> bool:
    """Whether a sentence may become false if its pictures are mirrored."""
    return any(map(_SIDES.search, sentences))


def speaks_of_light(sentences: Iterable[str]) -> bool:
    """Whether a sentence may become false if a picture becomes a little brighter, or its colours stronger."""
    return any(map(_LIGHT.search, sentences))


def speaks_of_framing(sentences: Iterable[str]) -> bool:
    """Whether a sentence may become false if a narrow strip of a picture is cut off."""
    return any(map(_FRAMING.search, sentences))
