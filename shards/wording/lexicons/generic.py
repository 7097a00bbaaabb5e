"""Everyday pictures: street scenes, photographs and what was done to them, the earth from above."""

from shards.wording.lexicons.common import AMOUNTS, COLORS, COMPARATIVES, DIRECTIONS, SHADES, SIZES, TINTS
from shards.wording.lexicons.lexicon import Lexicon, families, opposites

_NUMBERS = families("number", "two,2 | three,3 | four,4 | five,5 | six,6")
_STATES = opposites(
    "state", "open closed", "standing sitting", "entering exiting,leaving", "approaching leaving",
    "foreground background", "empty full", "clockwise counterclockwise", "first last",
)  # fmt: skip
_THINGS = tuple(
    families("thing", names, near, tag="NOUN")
    for names, near in (
        ("man,guy | woman,lady | boy | girl | child,kid,baby", "man-boy woman-girl boy-child girl-child"),
        ("men,guys | women,ladies | boys | girls | children,kids,babies",
         "men-boys women-girls boys-children girls-children"),
        ("car,sedan,wagon | truck,pickup | van,minivan | suv | bus | motorcycle | bike,bicycle | cart",
         "car-van car-suv van-suv truck-suv truck-van motorcycle-bike"),
        ("cars,sedans | trucks,pickups | vans,minivans | suvs | buses | motorcycles | bikes,bicycles",
         "cars-vans cars-suvs vans-suvs trucks-suvs trucks-vans motorcycles-bikes"),
        ("sidewalk,walkway | road,street | grass | crosswalk", "road-crosswalk sidewalk-crosswalk"),
        ("building,house | wall | fence", ""),
        ("tree | pole | bench | sign | umbrella", ""),
        ("buildings,houses | trees | poles | benches | signs | umbrellas", ""),
        ("shirt,jacket | hat,cap | dress", ""),
        ("shirts,jackets | hats,caps | pants,shorts", ""),
        ("hair | face | nose | mouth | beard", "nose-face mouth-face beard-face hair-beard"),
        ("dog | cat | horse | fish", ""),
        ("text,words,lettering,writing | logo | border | watermark", "text-logo text-watermark logo-watermark"),
        ("sky | water,ocean,lake | forest | beach,sand | mountain | clouds", "sky-clouds water-beach forest-mountain"),
        ("contrast | brightness,exposure | saturation | sharpness", "contrast-saturation"),
    )
)  # fmt: skip


def _both_ways(*pairs: tuple[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((a, (b,)) for a, b in pairs) + tuple((b, (a,)) for a, b in pairs)


_CHANGES = (
    *_both_ways(
        ("is no longer", "is still"), ("are no longer", "are still"), ("no longer has", "still has"),
        ("no longer have", "still have"), ("has disappeared", "has appeared"), ("have disappeared", "have appeared"),
        ("disappeared", "appeared"), ("was removed", "was added"), ("were removed", "were added"),
        ("has been removed", "has been added"), ("have been removed", "have been added"), ("has left", "has arrived"),
        ("have left", "have arrived"), ("have been demolished", "have been built"), ("are removed", "are built"),
        ("has been demolished", "has been built"), ("is removed", "is built"), ("there is now", "there is no longer"),
        ("there are now", "there are no longer"),
    ),
    ("is gone", ("has appeared", "has moved")), ("are gone", ("have appeared", "have moved")),
    ("is missing", ("has appeared", "has moved")), ("are missing", ("have appeared", "have moved")),
    ("has moved", ("is gone", "has appeared")), ("have moved", ("are gone", "have appeared")),
    ("there is a", ("there is no longer a",)), ("there is an", ("there is no longer an",)),
    ("there are two", ("there are no longer two",)), ("there are three", ("there are no longer three",)),
)  # fmt: skip
_COMMANDS = tuple(
    (verb, tuple(others.split(",")))
    for verb, others in (
        ("remove", "add,blur,enlarge,darken"), ("delete", "add,blur"), ("erase", "add,blur"), ("add", "remove"),
        ("insert", "remove"), ("brighten", "darken"), ("lighten", "darken"), ("darken", "brighten,lighten"),
        ("increase", "decrease,reduce"), ("raise", "lower"), ("decrease", "increase"), ("reduce", "increase"),
        ("lower", "raise,increase"), ("enlarge", "shrink"), ("shrink", "enlarge"), ("sharpen", "blur"),
        ("blur", "sharpen,remove"), ("crop", "rotate,blur,flip"), ("rotate", "crop,flip"), ("flip", "crop"),
    )
)  # fmt: skip

GENERIC = Lexicon(
    "generic",
    replaced=(COLORS, TINTS, _NUMBERS, *SIZES, *COMPARATIVES, *AMOUNTS, *SHADES, *DIRECTIONS, *_STATES),
    confused=_THINGS,
    sides=(("before", "after"), ("first", "second"), ("left", "right"), ("1st", "2nd")),
    side_nouns=frozenset("frame,image,one,photo,photograph,pic,picture,scene,shot".split(",")),
    changes=_CHANGES,
    commands=_COMMANDS,
    picture_commands=("brighten", "darken", "sharpen", "blur", "crop", "rotate", "flip", "enlarge", "shrink"),
)
