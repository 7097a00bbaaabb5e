"""What sentences about edited photos state, and that those of our captions state what they are made from."""

from __future__ import annotations

import numpy as np
import pytest

from shards.blocks import grammar as blocks
from shards.blocks.grammar import Change, agrees
from shards.edits.captions import REFERENCES, captions_for
from shards.edits.grammar import AT, COLORS, DIRECTIONS, GLOBAL, NAMES, PLACES, TO, parse, say, wordings
from shards.wording.claims import change_claim, says_change, says_no_change

STAR = {"color": "orange", "shape": "star", "place": "top left"}
CHANGES = [
    Change("add", STAR),
    Change("drop", STAR),
    Change("color", STAR, {"color": "blue"}),
    Change("move", STAR, {"place": "bottom"}),
    Change("rotate", {}, {"direction": "clockwise"}),
    *(Change(kind) for kind in GLOBAL if kind != "rotate"),
    Change("none"),
]


def truth_of(change: Change) -> dict:
    return {"type": change.type, "object": change.object or None, "to": change.to}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.type)
def test_captions_are_read_back_as_what_they_are_made_from(change):
    for sentence in wordings(change):
        assert parse(sentence) == change, sentence
    assert agrees(parse(say(truth_of(change))), truth_of(change))
    seen: set[str] = set()
    for seed in range(20):
        captions = captions_for(change, np.random.default_rng(seed))
        assert len(captions) == REFERENCES
        assert all(agrees(change_claim(caption), truth_of(change)) for caption in captions)
        assert {says_change(caption) for caption in captions} == {change.type != "none"}
        seen |= set(captions)
    assert len(seen) > REFERENCES, "wordings vary"
    if change.object:
        named = [parse(sentence).object.keys() for sentence in seen]
        assert all("shape" in names for names in named) and len({frozenset(names) for names in named}) == 4


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("color", COLORS[:2])
def test_every_place_and_name_is_read(place, color):
    for name in NAMES:
        change = Change("move", {"color": color, "shape": name, "place": place}, {"place": PLACES[-1]})
        sentences = wordings(change)
        assert all(parse(sentence) == change for sentence in sentences)
        assert len(sentences) == 3 * len(AT["top"]) * len(TO["top"]), "as many forms for each place"
        assert all(blocks.parse(sentence) is None for sentence in sentences), "the other grammar has other words"


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("The orange star in the upper left corner is gone.", Change("drop", STAR)),
        ("the sun disappeared", Change("drop", {"shape": "sun"})),
        ("there is now an orange star at the top left", Change("add", STAR)),
        ("the thing at the top became pink", Change("color", {"place": "top"}, {"color": "pink"})),
        ("the heart moved to the lower right corner", Change("move", {"shape": "heart"}, {"place": "bottom right"})),
        ("the image was turned to the left", Change("rotate", {}, {"direction": "counterclockwise"})),
        ("the picture was rotated", Change("rotate")),
        ("the images are identical", Change("none")),
        ("the red house is gone", None),
        ("a red circle was put in the corner", None),
        ("the circle is gone now", None),
        ("the circle became heavy", None),
        ("the photo is gone", None),
        ("the blue red circle is gone", None),
        ("", None),
    ],
)  # fmt: skip
def test_parse(sentence, change):
    assert parse(sentence) == change


def test_cutouts_are_read_where_they_are_known():
    things = frozenset({"coffee mug", "red mug"})
    gone = "the coffee mug on the left is gone"
    assert parse(gone) is None
    assert parse(gone, things) == Change("drop", {"shape": "coffee mug", "place": "left"})
    assert parse("a red mug was added", things) == Change("add", {"shape": "red mug"})
    assert change_claim("the coffee mug is gone", things) is not None and change_claim("the coffee mug is gone") is None


def test_what_may_be_left_out_and_what_not():
    moved = truth_of(Change("move", STAR, {"place": "bottom"}))
    assert agrees(parse("the star was moved"), moved) and agrees(parse("the star has moved to the bottom"), moved)
    assert not agrees(parse("the star has moved to the top"), moved)
    turned = truth_of(Change("rotate", {}, {"direction": "clockwise"}))
    assert agrees(parse("the photo was rotated"), turned)
    assert not agrees(parse("the photo was rotated counterclockwise"), turned)
    painted = truth_of(Change("color", STAR, {"color": "blue"}))
    assert not agrees(Change("color", STAR), painted), "a new colour has to be named"
    assert say({"type": "drop", "object": {"shape": "star"}, "to": None}) is None, "not known whole"
    assert say({"type": "rotate", "object": None, "to": None}) is None
    assert set(DIRECTIONS) == {"clockwise", "counterclockwise"}


def test_no_change_is_read_by_the_rules_of_free_text_too():
    assert all(says_no_change(sentence) for sentence in wordings(Change("none")))
