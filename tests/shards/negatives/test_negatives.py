"""Hard negatives: never true, close to the captions, kept apart, and the same every time."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shards.blocks.grammar import RELATION_WORDS, agrees, parse
from shards.errors import DataError
from shards.format.record import Record
from shards.negatives.mining import find_negatives, read_counts
from shards.sources.blocks import BlocksSource
from shards.wording.claims import Truth, photo_claim, truth_of_references

KINDS = ("retrieve", "replace", "confuse")
DIRECTIONS = sorted(itertools.chain(*RELATION_WORDS.values()), key=len, reverse=True)


@pytest.fixture(scope="module")
def source() -> BlocksSource:
    return BlocksSource(scenes=(120, 20, 20), class_photos=1)


@pytest.fixture(scope="module")
def records(source) -> list[Record]:
    return source.records(1)


@pytest.fixture(scope="module")
def negatives(records) -> list[dict | None]:
    return find_negatives(records)


def of_kind(kind, records, negatives):
    return [(r, n) for r, n in zip(records, negatives, strict=True) if r.kind == kind]


def test_negatives_of_pairs_are_not_true_of_them(records, negatives):
    # Measured against the scenes' own truth, which `agrees` reads as a person would: every named attribute is right.
    for kind in KINDS:
        judged = [agrees(parse(text), r.truth) for r, n in of_kind("pair", records, negatives) for text in n[kind]]
        assert len(judged) > 3000 and sum(judged) / len(judged) < 0.01, kind


def test_negatives_of_photos_are_not_true_of_them(source, records, negatives):
    wrong = total = 0
    for record, found in of_kind("photo", records, negatives):
        # All objects of the scene, those too hidden for a caption as well.
        there = Counter(tuple(sorted(t.attributes().items())) for t in source.scene(record.images["photo.jpg"]).objects)
        for text in itertools.chain(*found.values()):
            total += 1
            wrong += not (Counter(photo_claim(text)) - there)
    assert total > 1500 and wrong / total < 0.01


def test_lists_are_full_distinct_and_readable(records, negatives):
    for record, found in zip(records, negatives, strict=True):
        if record.kind == "class":
            assert found is None
            continue
        assert set(found) == {*KINDS, "matched"}
        for kind, texts in found.items():
            assert len(texts) == len(set(texts)) <= 6 and not set(texts) & set(record.captions)
            assert len(texts) == 6 or (record.kind, kind) == ("photo", "confuse") or kind == "matched"
            if record.kind == "pair":
                assert all(parse(text) is not None for text in texts)


def test_each_kind_is_wrong_in_its_own_way(records, negatives):
    for record, found in of_kind("pair", records, negatives):
        if not record.changed:
            continue
        own = [set(caption.split()) for caption in record.captions]
        for text in found["replace"]:  # the same change, other words
            assert parse(text).type == record.truth["type"]
        for text in found["confuse"]:  # another change, or none, of the same thing
            claim = parse(text)
            assert claim.type != record.truth["type"]
            assert all(record.truth["object"][name] == value for name, value in claim.object.items())
        assert any(len(words & set(text.split())) >= len(words) - 2 for words in own for text in found["retrieve"])
        assert sum(parse(text).type == "none" for text in found["confuse"]) == 1


def test_unchanged_pairs_get_sentences_about_things_that_are_there(source, records, negatives):
    for record, found in of_kind("pair", records, negatives):
        if record.changed or record.split != "train":
            continue
        for text in itertools.chain(*found.values()):
            assert parse(text).type != "none"
        things = [thing.attributes() for thing in source.scene(record.images["before.jpg"]).objects]
        things += [t.attributes() for t in source.scene(record.images["before.jpg"].split("/")[0] + "/after").objects]
        claims = [parse(text).object for text in found["confuse"]]
        assert all(any(claim.items() <= thing.items() for thing in things) for claim in claims)


def test_text_stays_in_its_split(records, negatives):
    test_only = {caption for r in records if r.split == "test" and r.kind == "pair" for caption in r.captions}
    test_only -= {caption for r in records if r.split != "test" for caption in r.captions}
    assert len(test_only) > 50
    for record, found in of_kind("pair", records, negatives):
        if record.split != "test":
            assert not test_only & set(found["retrieve"])


def test_they_depend_on_records_and_seed_alone(records, negatives):
    assert find_negatives(records) == negatives
    other = find_negatives(records, seed=1)
    assert sum(a != b for a, b in zip(other, negatives, strict=True)) > len(records) / 4
    short = find_negatives(records, count=2)
    assert {len(texts) for found in short if found for texts in found.values()} <= {0, 1, 2}


def test_relational_sentences_may_have_a_direction_turned_round():
    records = [
        r for r in BlocksSource(scenes=(60, 0, 0), relational=1.0, class_photos=0).records(1) if r.kind == "pair"
    ]
    flips = 0
    for record, found in zip(records, find_negatives(records), strict=True):
        for kind, text in ((name, text) for name in KINDS for text in found[name]):
            if agrees(parse(text), record.truth):  # the grammar reads the subject alone; then it is the direction
                assert kind == "replace" and without_direction(text) in map(without_direction, record.captions)
                assert text not in record.captions and record.truth["type"] != "move"
                flips += 1
    assert flips > 50


def without_direction(text: str) -> str:
    for words in DIRECTIONS:
        text = text.replace(f" {words} the ", " ? the ")
    return text


def test_text_without_a_grammar_gets_neighbours_that_are_not_near_equal():
    texts = [
        "the left bird has a long curved beak",
        "the left bird has a long and curved beak",
        "the left bird has a short straight beak",
        "a person left the car park",
    ]
    records = [Record("pair", "train", str(i), {}, str(i), (text,)) for i, text in enumerate(texts)]
    found = find_negatives(records)
    assert found[0]["retrieve"] == [texts[2], texts[3]]
    assert "the left bird has a short curved beak" in found[0]["replace"]


def pairs(*captions: tuple[str, ...], images: tuple[str, ...] = ()) -> list[Record]:
    """Pairs with these captions and, of those where it is given, this image in common."""
    return [
        Record("pair", "train", str(i), {"before.jpg": "shared" if str(i) in images else f"b{i}"}, str(i), texts)
        for i, texts in enumerate(captions)
    ]


@pytest.mark.parametrize(
    ("own", "other", "wanted"),
    [
        ("the car is gone", "the vehicle is gone", True),  # one word that is new may be a synonym
        ("the car is gone", "the truck is gone", False),  # one that contradicts is not
        ("the bird is larger", "the bird is bigger", True),
        ("the car is gone", "the red car by the shop is gone", True),  # says more of the same
        ("there are no differences", "the two images look pretty much the same", True),
        ("a man left the shop", "there are no differences", False),
    ],
)
def test_free_text_that_may_repeat_a_reference_is_no_negative(own, other, wanted):
    from shards.wording.lexicons.generic import GENERIC

    assert Truth(pairs((own,))[0], (), GENERIC).may_hold(other) is wanted


def test_captions_of_pairs_that_share_an_image_are_not_retrieved():
    texts = (("a blue car left the lot",), ("a red truck left the lot",), ("a man left the lot with a dog",))
    apart = find_negatives(pairs(*texts))[0]["retrieve"]
    shared = find_negatives(pairs(*texts, images=("0", "1")))[0]["retrieve"]
    assert texts[1][0] in apart and shared == [text for text in apart if text != texts[1][0]]


@pytest.mark.parametrize("given", ["6,x", "retrieve=x", "-1", "retreive=3", "", "retrieve=1,"])
def test_a_wrong_count_is_refused_with_the_fix(given):
    with pytest.raises(DataError, match="as in retrieve=6,replace=4,confuse=2"):
        read_counts(given)


def test_counts_by_kind(records):
    assert read_counts("6") == read_counts("retrieve=6,replace=6,confuse=6") == 6
    counts = read_counts("retrieve=3,confuse=1")
    some = [record for record in records if record.kind == "pair"][:40]
    for found in find_negatives(some, counts):
        assert [len(found[kind]) for kind in KINDS] == [3, 0, 1]


FREE = [
    ("animal1 is larger than animal2 and has a black head", "animal2 has a yellow belly and a long beak"),
    ("animal1 has brown wings while animal2 has red wings", "animal2 is smaller"),
    ("animal1 has a curved beak . animal2 has a white breast",),
    ("these animals look the same",),
]


@pytest.mark.slow
def test_free_text_does_not_depend_on_workers_or_the_process(tmp_path):
    program = (
        "import sys, json; sys.path.insert(0, 'tests/shards/negatives'); from test_negatives import FREE, pairs\n"
        "from shards.negatives.mining import find_negatives\n"
        "print(json.dumps(find_negatives(pairs(*FREE), workers=int(sys.argv[1]))))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program, workers], env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for workers, hash_seed in (("1", "1"), ("2", "2"))
    ]  # fmt: skip
    assert printed[0] == printed[1] and len(json.loads(printed[0])[0]["replace"]) == 6


def test_unknown_attributes_count_as_possible():
    # The references do not tell the material, so a sentence about a metal cube may be true.
    references = ("the red cube is gone", "the large cube is missing")
    truth = truth_of_references(references)
    assert truth == {"type": "drop", "object": {"color": "red", "shape": "cube", "size": "large"}, "to": None}
    record = Record("pair", "train", "k", {}, "k", references, True, "drop")
    may_hold = Truth(record).may_hold
    assert may_hold("the metal cube has disappeared") and may_hold("the big thing is gone")
    assert not may_hold("the small cube is gone") and not may_hold("the red cube has been added")
    exact = replace(record, truth={**truth, "object": {**truth["object"], "material": "rubber"}})
    assert not Truth(exact).may_hold("the metal cube has disappeared")
    assert truth_of_references(("the red cube is gone", "the blue cube is gone")) is None
    assert truth_of_references(("the red cube is gone", "the red cube moved")) is None
    assert truth_of_references(("no idea",)) is None
