"""The words of the captions of edited photos: what can be said, and reading a sentence back into the change it states.

A change is that of `shards.blocks.grammar`: its type, the attributes of the thing, what became of it. The types are
those of LOCAL, which are about a pasted thing, and of GLOBAL, which are about the whole image; or "none". A thing has a
"shape" (its name), a "color" and a "place"; "to" is the new color, the new place, or the direction of a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache

from shards.blocks.grammar import THING_WORDS, Change, one_of

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
# Glyphs of DejaVu Sans, the font that comes with matplotlib.
GLYPHS = {
    "sun": "\u2600", "cloud": "\u2601", "umbrella": "\u2602", "snowman": "\u2603", "telephone": "\u260e",
    "heart": "\u2665", "anchor": "\u2693", "flag": "\u2691", "moon": "\u263e", "airplane": "\u2708",
    "envelope": "\u2709", "flower": "\u2740",
}  # fmt: skip
NAMES = (*SHAPES, *GLYPHS)
LOCAL = ("add", "drop", "color", "move")
DIRECTIONS = {"clockwise": ("clockwise", "to the right"), "counterclockwise": ("counterclockwise", "to the left")}
CORNERS = ("top left", "top right", "bottom left", "bottom right")
SIDES = ("top", "left", "right", "bottom")
# By rows from the top: a place is a cell of a 3x3 grid.
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")

# Where a thing is, and where it went: as many forms for each place.
_PLACED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{place: ((f"in the {place} corner", f"at the {place}"), (f"to the {place} corner", f"to the {place}"))
       for place in CORNERS},
    "top": (("at the top", "near the top edge"), ("to the top", "to the top edge")),
    "bottom": (("at the bottom", "near the bottom edge"), ("to the bottom", "to the bottom edge")),
    "left": (("on the left", "on the left side"), ("to the left side", "to the left edge")),
    "right": (("on the right", "on the right side"), ("to the right side", "to the right edge")),
    "middle": (("in the middle", "in the center"), ("to the middle", "to the center")),
}  # fmt: skip
AT = {place: at for place, (at, _) in _PLACED.items()}
TO = {place: to for place, (_, to) in _PLACED.items()}
SUBJECTS = ("the photo", "the picture", "the image")
# {} is one of SUBJECTS.
GLOBAL: dict[str, tuple[str, ...]] = {
    "brighter": ("{} is brighter", "{} was brightened", "{} has become lighter"),
    "darker": ("{} is darker", "{} was darkened", "{} has become darker"),
    "gray": ("{} is black and white now", "{} has lost its colors", "{} was turned into shades of gray"),
    "saturated": ("{} is more colorful", "{} has stronger colors", "the colors of {} are more vivid"),
    "blur": ("{} was blurred", "{} is blurry now", "{} is out of focus"),
    "crop": ("{} was cropped", "{} was zoomed in", "{} shows a smaller part of the scene"),
    "rotate": ("{} was rotated", "{} was turned"),
    "mirror": ("{} was mirrored", "{} was flipped", "left and right of {} are swapped"),
}
# {a} and {the} are the thing with its article, {at} and {to} a place or nothing, {new} a color.
PREDICATES: dict[str, tuple[str, ...]] = {
    "add": ("{a} was added{at}", "{a} has appeared{at}", "there is {a}{at} now"),
    "drop": ("{the}{at} is gone", "{the}{at} was removed", "{the}{at} has disappeared"),
    "color": ("{the}{at} turned {new}", "{the}{at} became {new}", "{the}{at} is {new} now"),
    "move": ("{the}{at} was moved{to}", "{the}{at} has moved{to}", "{the}{at} changed its place{to}"),
}
NO_CHANGE = (
    "there is no change",
    "there is no difference",
    "nothing has changed",
    "no change was made",
    "the two photos are the same",
    "the photo is the same as before",
    "the pictures are identical",
)
TYPES = (*LOCAL, *GLOBAL)

# Said by people and models, never by our captions; understood all the same.
_MORE_NO_CHANGE = (
    "no change", "nothing changed", "the photos are the same", "the images are the same", "the images are identical",
    "the two images are the same", "the pictures are the same", "the photos are identical",
)  # fmt: skip
_ENDINGS = {
    "drop": ("is gone", "was removed", "has been removed", "has disappeared", "disappeared", "is missing"),
    "move": ("was moved", "has been moved", "has moved", "moved", "changed its place", "is in a different place"),
}


def _more(phrases: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Phrase -> place, with "upper" and "lower" too."""
    found = {phrase: place for place, forms in phrases.items() for phrase in forms}
    upper = {text.replace("the top ", "the upper ").replace("the bottom ", "the lower "): place
             for text, place in found.items() if place in CORNERS}  # fmt: skip
    return found | upper


_PLACE_AT, _PLACE_TO = _more(AT), _more(TO)


_THING = r"(?:the|an?) (?P<words>\S+(?: \S+){0,4}?)"
_AT = rf"(?: (?P<at>{one_of(_PLACE_AT)}))?"
_TO = rf"(?: (?P<to>{one_of(_PLACE_TO)}))?"
_FORMS = tuple(
    (kind, re.compile(f"^{form}$"))
    for kind, form in (
        ("add", rf"{_THING} (?:was added|has been added|has appeared|appeared){_AT}"),
        ("add", rf"there is {_THING}{_AT} now"),
        ("add", rf"there is now {_THING}{_AT}"),
        ("drop", rf"{_THING}{_AT} (?:{one_of(_ENDINGS['drop'])})"),
        ("color", rf"{_THING}{_AT} (?:turned|became|has become|is now|changed to|changed color to) (?P<new>\w+)"),
        ("color", rf"{_THING}{_AT} is (?P<new>\w+) now"),
        ("move", rf"{_THING}{_AT} (?:{one_of(_ENDINGS['move'])}){_TO}"),
    )
)


def whole_image_sentences(kind: str, direction: str | None = None) -> Iterator[str]:
    """All sentences of a change of the whole image, in a fixed order; `direction` of a turn, None: not named."""
    endings = [f" {word}" for word in DIRECTIONS[direction]] if direction else [""]
    for subject in SUBJECTS:
        for phrase in GLOBAL[kind]:
            yield from (phrase.format(subject) + ending for ending in endings)


_WHOLE = {
    sentence: (kind, direction)
    for kind in GLOBAL
    for direction in (None, *(DIRECTIONS if kind == "rotate" else ()))
    for sentence in whole_image_sentences(kind, direction)
}
_NOTHING = frozenset(NO_CHANGE + _MORE_NO_CHANGE)


def parse(sentence: str, things: Set[str] = frozenset()) -> Change | None:
    """The change that a sentence states, None where it states none that can be understood.

    `things` are names of things beside NAMES: those of a data set's own cut-outs.
    """
    text = " ".join(sentence.lower().replace(".", " ").replace(",", " ").split())
    if text in _NOTHING:
        return Change("none")
    if text in _WHOLE:
        kind, direction = _WHOLE[text]
        return Change(kind, {}, {"direction": direction} if direction else None)
    for kind, form in _FORMS:
        found = form.match(text)
        if found is None:
            continue
        named = found.groupdict()
        thing = _thing(named["words"], things)
        if thing is None:
            continue
        if named["at"]:
            thing["place"] = _PLACE_AT[named["at"]]
        if kind == "color":
            if named["new"] not in COLORS:
                continue
            return Change(kind, thing, {"color": named["new"]})
        return Change(kind, thing, {"place": _PLACE_TO[named["to"]]} if named.get("to") else None)
    return None


def _thing(words: str, things: Set[str]) -> dict[str, str] | None:
    """The attributes that "red circle" names; None where it is no thing of these captions."""
    if words in things:
        return {"shape": words}
    color, _, name = words.partition(" ")
    attributes = {"color": color} if color in COLORS and name else {}
    name = name if attributes else words
    if name in NAMES or name in things:
        return attributes | {"shape": name}
    return attributes if name in THING_WORDS else None


def say(truth: Mapping) -> str | None:
    """The truth in fixed words, with all that can be named; None where it lacks something, or is of other data."""
    kind, thing, to = truth["type"], truth["object"] or {}, truth["to"] or {}
    if kind == "none":
        return NO_CHANGE[0]
    if kind == "rotate" and "direction" not in to:
        return None
    if kind in LOCAL and not {"shape", "place"} <= set(thing):
        return None
    if kind not in TYPES or (kind in ("color", "move") and not to):
        return None
    return wordings(Change(kind, dict(thing), dict(to) or None))[0]


def wordings(change: Change) -> tuple[str, ...]:
    """All sentences of our captions that state a change and name just what it names, in a fixed order.

    Two changes of one type that name the same attributes have as many, word for word but for the values.
    """
    return _wordings(change.type, tuple(change.object.items()), tuple((change.to or {}).items()))


@lru_cache(maxsize=1 << 16)
def _wordings(kind: str, named: tuple[tuple[str, str], ...], to: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    if kind == "none":
        return NO_CHANGE
    thing, new = dict(named), dict(to)
    if kind in GLOBAL:
        return tuple(whole_image_sentences(kind, new.get("direction")))
    words = " ".join(filter(None, (thing.get("color"), thing.get("shape", THING_WORDS[0]))))
    article = "an" if words[0] in "aeiou" else "a"
    at = [f" {phrase}" for phrase in AT[thing["place"]]] if "place" in thing else [""]
    goal = [f" {phrase}" for phrase in TO[new["place"]]] if "place" in new else [""]
    return tuple(
        form.format(a=f"{article} {words}", the=f"the {words}", at=where, to=there, new=new.get("color", ""))
        for form in PREDICATES[kind]
        for where in at
        for there in goal
    )
