"""Every sentence singles out the right object and says what happened: checked with a reading of our own."""

import functools
import math
import re
from collections import Counter

import numpy as np
import pytest

from shards.blocks.captions import CLASS_NAMES, captions_for, photo_captions
from shards.blocks.grammar import NO_CHANGE, agrees, parse, say
from shards.blocks.scenes import Change, Scene, make_triple, visible_pixels

VALUE = {
    "large": "large", "big": "large", "small": "small", "tiny": "small", "metal": "metal", "metallic": "metal",
    "shiny": "metal", "rubber": "rubber", "matte": "rubber", "cube": "cube", "block": "cube", "sphere": "sphere",
    "ball": "sphere", "cylinder": "cylinder",
} | {color: color for color in "gray red blue green brown purple cyan yellow".split()}  # fmt: skip
PAIRINGS = (("before", "after"), ("after", "distractor"))
SIDE = {
    "left of": "left", "to the left of": "left", "on the left side of": "left",
    "right of": "right", "to the right of": "right", "on the right side of": "right",
    "behind": "behind", "in front of": "front",
}  # fmt: skip
SIDES = "|".join(sorted(SIDE, key=len, reverse=True))


cached_triple = functools.cache(make_triple)


def changed_pairs(count, relational):
    for index in range(count):
        triple = cached_triple(11, index)
        for first, second in PAIRINGS:
            change = triple.between(first, second)
            if change is not None:
                rng = np.random.default_rng((index, first == "before"))
                pair = triple.scene(first), triple.scene(second)
                yield change, *pair, captions_for(change, *pair, rng, relational)


def fitting(scene, words):
    """Objects that have every attribute a phrase names."""
    wanted = [VALUE[word] for word in words.split() if word not in ("thing", "object", "other")]
    return [thing for thing in scene.objects if all(value in thing.attributes().values() for value in wanted)]


def stands(camera, thing, anchor, side):
    """Whether the thing is left of, right of, behind or in front of the anchor, to somebody at the camera."""
    angle = math.atan2(thing.y - anchor.y, thing.x - anchor.x) - math.atan2(-camera[1], -camera[0])
    distance = math.hypot(thing.x - anchor.x, thing.y - anchor.y)
    ahead, leftwards = distance * math.cos(angle), distance * math.sin(angle)
    return {"left": leftwards, "right": -leftwards, "behind": ahead, "front": -ahead}[side] > 0.2


def referents(scene: Scene, expression: str) -> list:
    """Objects that an expression can mean."""
    match = re.fullmatch(r"the other (.+?) that is the same (\w+) as the (.+)", expression)
    if match:
        anchors = fitting(scene, match[3])
        assert len(anchors) == 1
        return [
            thing
            for thing in fitting(scene, match[1])
            if thing is not anchors[0] and getattr(thing, match[2]) == getattr(anchors[0], match[2])
        ]
    place = rf"({SIDES}) the (.+?)"
    match = re.fullmatch(rf"the (.+?)(?: that is)?(?: both)? {place}(?: and {place})?", expression)
    if not match:
        return fitting(scene, expression.removeprefix("the "))
    found = fitting(scene, match[1])
    for side, words in ((match[2], match[3]), (match[4], match[5])):
        if side:
            (anchor,) = fitting(scene, words)
            found = [thing for thing in found if stands(scene.camera, thing, anchor, SIDE[side])]
    return found


PREDICATE = re.compile(
    r" (?:(?:changed to|turned|became) \w+|is gone|is missing|has disappeared|is no longer there|has been added"
    r"|has appeared|has been newly placed|changed its location|is in a different location"
    r"|was moved from its original location)$"
)


@pytest.mark.parametrize("relational", [0.0, 0.7])
def test_expressions_mean_the_changed_object_alone(relational):
    related = total = 0
    for change, first, second, captions in changed_pairs(150, relational):
        shown = second if change.type == "add" else first
        for caption in captions:
            subject = PREDICATE.sub("", caption)
            assert subject != caption
            assert referents(shown, subject) == [change.object], caption
            related += len(subject.split(" the ")) > 1
            total += 1
    assert (related == 0) if relational == 0.0 else (0.4 < related / total < 0.7)


@pytest.mark.parametrize("relational", [0.0, 0.5])
def test_the_grammar_reads_every_caption_as_the_truth(relational):
    for change, _, _, captions in changed_pairs(250, relational):
        truth = change.truth()
        for caption in (*captions, say(truth)):
            assert agrees(parse(caption), truth), caption


def test_numbers_of_references():
    lengths = [len(captions) for *_, captions in changed_pairs(300, 0.0)]
    assert set(lengths) <= set(range(5, 11))
    assert abs(np.mean(lengths) - 7.4) < 0.25
    triple = make_triple(0, 0)
    rng = np.random.default_rng(0)
    unchanged = [captions_for(Change("none"), triple.before, triple.distractor, rng) for _ in range(50)]
    assert all(len(set(captions)) == 5 and set(captions) <= set(NO_CHANGE) for captions in unchanged)
    assert len(set(unchanged)) > 10


def test_words_are_varied_and_attributes_left_out():
    words = Counter(
        word for *_, captions in changed_pairs(200, 0.0) for caption in captions for word in caption.split()
    )
    for word in (*VALUE, "thing", "object"):
        assert words[word] > 5, word


def test_captions_depend_on_the_generator_alone():
    change, first, second, captions = next(changed_pairs(1, 0.5))
    assert captions == captions_for(change, first, second, np.random.default_rng((0, True)), 0.5)
    assert captions != captions_for(change, first, second, np.random.default_rng(5), 0.5)


def test_photo_captions_name_every_visible_object_and_nothing_else():
    for index in range(60):
        scene = make_triple(15, index).before
        captions = photo_captions(scene, np.random.default_rng(index))
        assert len(captions) >= 4
        named = [name for caption in captions for name in caption.removeprefix("a photo of a ").split(" and a ")]
        assert all(1 <= caption.count(" a ") <= 3 and caption.startswith("a photo of a ") for caption in captions)
        full_names = [" ".join(thing.attributes().values()) for thing in scene.objects]
        visible = {name for name, pixels in zip(full_names, visible_pixels(scene), strict=True) if pixels >= 100}
        assert set(named) == visible
        assert visible <= set(CLASS_NAMES)


def test_class_names():
    assert len(set(CLASS_NAMES)) == 96
    assert "large red metal cube" in CLASS_NAMES
