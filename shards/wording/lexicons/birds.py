"""Birds, as Birds-to-Words and the captions of CUB write of them."""

from shards.wording.lexicons.common import AMOUNTS, COLORS, COMPARATIVES, SHADES, SIZES, TINTS
from shards.wording.lexicons.lexicon import Lexicon, opposites

# What tells a text about birds from others; "body", "face" and the like are said of anything.
MARKS = frozenset(
    "animal1,animal2,bird,birds,beak,beaks,belly,bill,breast,crest,crown,feathers,feathering,plumage,nape,rump,tail,"
    "underbelly,wing,wings,wingbars".split(",")
)
_SHAPES = opposites(
    "shape", "pointed,pointy rounded,round,blunt", "curved,hooked straight", "pointier rounder", "sharper blunter",
    "sharp blunt", "fluffier,fuller sleeker", "fluffy sleek", "smooth ruffled,scruffy", "smoother rougher",
    "open closed", "curvier straighter", "horizontal vertical", "upper lower", tag="ADJ",
)  # fmt: skip

BIRDS = Lexicon(
    "birds",
    replaced=(COLORS, TINTS, *SIZES, *COMPARATIVES, *AMOUNTS, *SHADES, *_SHAPES),
    sides=(("animal1", "animal2"), ("animal1s", "animal2s")),
)
