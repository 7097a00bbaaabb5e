"""Sentences that say "no change" in other languages, learnt from the pairs that are marked unchanged."""

from __future__ import annotations

from shards.format.record import Record
from shards.wording.claims import NONE, Truth, says_change, says_no_change
from shards.wording.denials import learn_denials


def pair(changed: bool | None, *captions: str, split: str = "train") -> Record:
    return Record("pair", split, "k", {}, "k", captions, changed)


GERMAN = [
    *[pair(False, "Es gibt keine Veränderung.", "alles ist wie vorher")] * 3,
    *[pair(True, "ein Haus wurde gebaut", "neben der Straße steht ein Haus")] * 4,
    pair(False, "ein Haus wurde gebaut", "ein Einzelfall"),
]


def test_what_is_said_of_unchanged_pairs_alone_says_no_change():
    learnt = learn_denials(GERMAN)
    assert learnt == {"es gibt keine veränderung", "alles ist wie vorher"}
    assert says_change("Es gibt keine Veränderung", learnt) is False
    assert says_no_change("ES GIBT  KEINE VERÄNDERUNG!", learnt)
    assert says_change("Es gibt keine Veränderung") is True, "not read without"
    assert says_change("ein Haus wurde gebaut", learnt) is True and says_change("", learnt) is None


def test_other_words_of_a_pair_that_is_surely_unchanged_say_no_change():
    both = [pair(False, "nothing has changed", "every cup is in its place", "a red cube has been added")] * 2
    learnt = learn_denials([*both, pair(False, "no change", "once"), *[pair(True, "the cup has gone")] * 4])
    assert learnt == {"every cup is in its place"}, "not what is said once, nor what a grammar reads as a change"
    assert says_change("Every cup is in its place.", learnt) is False
    also = [*both, *[pair(True, "every cup is in its place")] * 2]
    assert learn_denials(also) == NONE, "said of changed pairs too"


def test_a_reference_that_denies_makes_a_pair_unchanged():
    learnt = learn_denials(GERMAN)
    record = pair(None, "alles ist wie vorher")
    assert Truth(record, learnt=learnt).may_hold("Es gibt keine Veränderung") and Truth(record, learnt=learnt).unchanged
    changed = pair(True, "ein Haus wurde gebaut")
    assert not Truth(changed, learnt=learnt).may_hold("Es gibt keine Veränderung")


def test_marks_that_are_wrong_teach_nothing():
    swapped = [pair(False, "a house has been built")] * 4 + [pair(True, "there is no change")] * 4
    assert learn_denials(swapped) == NONE
    english = [pair(False, "there is no change")] * 4 + [pair(False, "a villa was built")] * 2
    assert learn_denials(english) == NONE, "English is read by its rules"
    assert learn_denials([pair(None, "alles ist wie vorher")] * 4) == NONE


def test_the_training_split_teaches_where_it_can():
    records = [*GERMAN, *[pair(False, "nichts neues", split="test")] * 3]
    assert "nichts neues" not in learn_denials(records)
    assert learn_denials([pair(False, "nichts neues", split="test")] * 3) == {"nichts neues"}
