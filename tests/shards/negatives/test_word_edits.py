"""Free captions made wrong: other words that fit the grammar, and never what another caption says."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from shards.format.record import Record
from shards.negatives.kinds import KINDS
from shards.negatives.mining import find_negatives
from shards.negatives.swaps import confuse_text
from shards.negatives.word_edits import Said, replace_words
from shards.wording.lexicons.birds import BIRDS
from shards.wording.lexicons.choice import choose_lexicon
from shards.wording.lexicons.generic import GENERIC
from shards.wording.tagging import read


def made(way, lexicon, *captions: str, of: int = 1) -> set[str]:
    """All that is made of the first `of` captions over several seeds."""
    found: set[str] = set()
    for seed in range(12):
        said = Said(captions, lexicon)
        found |= set(way(captions[:of], lexicon, said, Counter(), np.random.default_rng(seed)))
    return found


@pytest.mark.parametrize(
    ("way", "lexicon", "caption", "expected"),
    [
        (replace_words, BIRDS, "animal1 has a longer beak than animal2", "animal1 has a shorter beak than animal2"),
        (replace_words, BIRDS, "animal1 is shorter than animal2", "animal1 is taller than animal2"),
        (replace_words, BIRDS, "animal1 has more spots", "animal1 has fewer spots"),
        (replace_words, BIRDS, "animal1 is more brown", "animal1 is less brown"),
        (replace_words, BIRDS, "animal1 is more brown , with more spots", "animal1 is less brown , with more spots"),
        (replace_words, BIRDS, "animal1 is larger , animal2 is smaller", "animal1 is smaller , animal2 is larger"),
        (replace_words, BIRDS, "animal1 has an open beak", "animal1 has a closed beak"),
        (replace_words, GENERIC, "Remove the man on the left", "Remove the man on the right"),
        (replace_words, GENERIC, "two people are in the lot", "three people are in the lot"),
        (replace_words, GENERIC, "There is a red car", "There is a blue car"),
        (confuse_text, BIRDS, "animal1 is larger than animal2", "animal2 is larger than animal1"),
        (confuse_text, BIRDS, "animal1 is red , while animal2 is blue", "animal2 is red , while animal1 is blue"),
        (confuse_text, BIRDS, "it has a black head and a yellow belly", "it has a yellow head and a black belly"),
        (confuse_text, GENERIC, "the car is gone", "the truck is gone"),
        (confuse_text, GENERIC, "the car is gone", "the car has appeared"),
        (confuse_text, GENERIC, "the car is no longer there", "the car is still there"),
        (confuse_text, GENERIC, "a man is in the after image", "a man is in the before image"),
        (confuse_text, GENERIC, "Brighten the sky", "Darken the sky"),
        (confuse_text, GENERIC, "add an old car", "remove the old car"),
        (confuse_text, GENERIC, "remove the old car", "add an old car"),
    ],
)
def test_a_word_that_fits_is_put_in_or_put_to_the_wrong_thing(way, lexicon, caption, expected):
    assert expected in made(way, lexicon, caption)


def test_an_article_follows_its_word():
    found = made(replace_words, BIRDS, "animal1 has a white eye and an orange beak")
    assert any(" a blue beak" in text for text in found) and any(" an emerald eye" in text for text in found)
    for text in found:
        words = text.split()
        for article, word in zip(words, words[1:], strict=False):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), text


@pytest.mark.parametrize(
    ("way", "lexicon", "caption"),
    [
        (replace_words, GENERIC, "the person has left the lot"),  # a verb, no direction
        (replace_words, GENERIC, "the car is right behind the truck"),
        (replace_words, GENERIC, "the stop light turned"),
        (replace_words, BIRDS, "animal1 does not have red spots"),  # without green ones it may be as well
        (replace_words, GENERIC, "Make it black and white"),
        # Sides that are told the same.
        (confuse_text, BIRDS, "animal1 and animal2 both have red wings"),
        (confuse_text, BIRDS, "animal1 is red , while animal2 is red"),
        (confuse_text, BIRDS, "animal1 and animal2 look the same"),
    ],
)
def test_words_of_another_sense_and_equal_sides_stay(way, lexicon, caption):
    assert made(way, lexicon, caption) == set()


def test_a_word_of_several_syllables_keeps_its_more():
    assert made(replace_words, BIRDS, "animal1 is more slender") == {"animal1 is less slender"}  # not "more fat"


def test_what_another_caption_says_of_the_same_side_is_not_put_in():
    captions = ("animal1 has a black head", "animal1 has a yellow head , animal2 is red", "animal1 is blue")
    heads = {text.split()[-2] for text in made(replace_words, BIRDS, *captions)}
    assert "red" in heads and not heads & {"black", "yellow", "orange", "gold", "blue", "turquoise", "green", "brown"}


def test_parts_of_speech_of_words_with_two_minds():
    def tag(caption, word):
        return dict(zip(read(caption).words, read(caption).tags, strict=True))[word]

    assert tag("the man has left", "left") == "VERB" and tag("the left car", "left") == "ADJ"
    assert tag("the light turned red", "light") == "NOUN" and tag("a light head", "light") == "ADJ"
    assert tag("remove the turn", "turn") == "NOUN" and tag("turn the picture", "turn") == "VERB"


def test_the_text_chooses_the_lexicon(shared_data):
    text = shared_data / "text"
    birds = json.loads((text / "birds_to_words_test_text.json").read_bytes())
    assert choose_lexicon([caption for captions in birds.values() for caption in captions]) is BIRDS
    spotted = json.loads((text / "spot_the_diff_val.json").read_bytes())
    assert choose_lexicon([caption for entry in spotted for caption in entry["sentences"]]) is GENERIC


def test_lists_of_real_captions_are_well_filled_and_new(shared_data):
    birds = json.loads((shared_data / "text" / "birds_to_words_test_text.json").read_bytes())
    records = [
        Record(
            "pair", "test", key, dict(zip(("before.jpg", "after.jpg"), key.split("_"), strict=True)), key, tuple(said)
        )
        for key, said in birds.items()
    ]
    found = find_negatives(records)
    for kind, least in zip(KINDS, (5.9, 5.2, 4.5), strict=True):
        assert sum(len(lists[kind]) for lists in found) / len(found) > least
    for record, lists in zip(records, found, strict=True):
        for texts in lists.values():
            assert len(set(texts)) == len(texts) and not set(texts) & set(record.captions)
