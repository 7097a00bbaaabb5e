"""What sentences say of pictures as such."""

import pytest

from shards.wording.pictures import names_a_side, speaks_of_framing, speaks_of_light


@pytest.mark.parametrize(
    "sentence",
    ["The dog on the left", "in the upper-right corner", "rotated clockwise", "a house on the eastern side",
     "links steht ein Hund", "à gauche", "a la derecha", "左边的狗", "the leftmost car", "to the southwest"],
)  # fmt: skip
def test_sides(sentence: str) -> None:
    assert names_a_side(["nothing has changed", sentence])


@pytest.mark.parametrize("sentence", ["a bright red ball", "the upper car has moved", "a beast", "it has been lifted",
                                      "the bird at the top", "delinked"])  # fmt: skip
def test_no_sides(sentence: str) -> None:
    assert not names_a_side([sentence])


def test_light_and_framing() -> None:
    assert speaks_of_light(["animal1 has a darker head"]) and speaks_of_light(["increase the contrast"])
    assert not speaks_of_light(["the red cube turned blue", "there is no highlight"])
    assert speaks_of_framing(["crop the image"]) and speaks_of_framing(["a dog near the edge"])
    assert not speaks_of_framing(["there is no change", "the dog has gone"])
