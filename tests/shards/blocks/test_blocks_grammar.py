"""Reading sentences that our captions never make, and judging them."""

import pytest

from shards.blocks.grammar import NO_CHANGE, WORDS, Change, agrees, parse, say

TRUTH = {
    "type": "color",
    "object": {"size": "large", "color": "red", "material": "metal", "shape": "cube"},
    "to": {"color": "blue"},
}
DROP = {**TRUTH, "type": "drop", "to": None}


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("The big red shiny block turned blue.", Change("color", TRUTH["object"], {"color": "blue"})),
        ("the thing became matte", Change("material", {}, {"material": "rubber"})),
        ("the red cube is now metallic", Change("material", {"color": "red", "shape": "cube"}, {"material": "metal"})),
        ("the ball moved", Change("move", {"shape": "sphere"})),
        ("a tiny ball was added", Change("add", {"size": "small", "shape": "sphere"})),
        ("the other thing that is the same size as the red cube is gone", Change("drop", {})),
        ("the ball that is both left of the cube and behind the thing is missing", Change("drop", {"shape": "sphere"})),
        ("the cyan thing to the right of the cube changed its location", Change("move", {"color": "cyan"})),
        ("there is no difference", Change("none")),
        ("the red cube", None),
        ("the red blue cube is gone", None),
        ("the red house is gone", None),
        ("the cube turned large", None),
        ("the the the", None),
        ("is gone", None),
        ("", None),
    ],
)  # fmt: skip
def test_parse(sentence, change):
    assert parse(sentence) == change


def test_the_oracle_is_right_and_names_everything():
    for truth in (TRUTH, DROP, {"type": "none", "object": None, "to": None}):
        assert agrees(parse(say(truth)), truth)
    assert parse(say(DROP)).object == DROP["object"]


@pytest.mark.parametrize(
    "sentence",
    [
        "the large blue metal cube turned blue",  # wrong attribute
        "the large red metal cube turned green",  # wrong new value
        "the large red metal cube turned metal",  # wrong type
        "the large red metal cube is gone",
        "there is no change",
        "blah",
    ],
)
def test_wrong_sentences_do_not_agree(sentence):
    assert agrees(parse("the cube turned blue"), TRUTH)
    assert not agrees(parse(sentence), TRUTH)


def test_a_change_does_not_agree_with_no_change():
    nothing = {"type": "none", "object": None, "to": None}
    assert all(agrees(parse(sentence), nothing) for sentence in NO_CHANGE)
    assert not agrees(parse("the cube is gone"), nothing)
    assert not agrees(None, nothing)


def test_every_word_belongs_to_one_attribute():
    assert len(WORDS) == 2 * 2 + 8 + 3 + 2 + 2 + 2 + 1
    assert WORDS["shiny"] == ("material", "metal")
