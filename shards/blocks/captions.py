"""Sentences about blocks: references of an image pair, captions of single photos, names of the object classes.

All draws come from the generator that is passed in, so the caller's seed decides.
"""

from __future__ import annotations

import itertools

import numpy as np

from shards.blocks.grammar import NO_CHANGE, PREDICATES, RELATION_WORDS, SYNONYMS, THING_WORDS
from shards.blocks.scenes import ATTRIBUTES, CLASSES, MIN_PIXELS_ANY, Change, Scene, Thing, ground_directions
from shards.blocks.scenes import visible_pixels as _visible_pixels

CLASS_NAMES = tuple(" ".join(attributes.values()) for attributes in CLASSES)
FEWEST_REFERENCES, MOST_REFERENCES = 5, 10
MEAN_REFERENCES = 7.4  # of changed pairs in CLEVR-Change; unchanged ones have 5
FEWEST_PHOTO_CAPTIONS = 4
RELATION_MARGIN = 0.2  # scene units by which one object must be left of, behind... another to be called so
_SUBSETS = tuple(
    subset for length in range(1, 5) for subset in itertools.combinations(ATTRIBUTES, length)
)  # sets of attributes that an expression may name


def captions_for(
    change: Change, first: Scene, second: Scene, rng: np.random.Generator, relational: float = 0.0
) -> tuple[str, ...]:
    """References of the image pair (first, second) with this change: 5 to 10, or 5 where nothing changed.

    `relational` is the share of references that single the object out by its place or likeness to another one
    ("the ball left of the red cube"); where no such expression fits, a plain one is used.
    """
    if change.type == "none":
        chosen = rng.permutation(len(NO_CHANGE))[:FEWEST_REFERENCES]
        return tuple(NO_CHANGE[i] for i in chosen)
    assert change.object is not None
    extra = MOST_REFERENCES - FEWEST_REFERENCES
    count = FEWEST_REFERENCES + int(rng.binomial(extra, (MEAN_REFERENCES - FEWEST_REFERENCES) / extra))
    shown, other = (second, first) if change.type == "add" else (first, second)
    plain = _telling_subsets(shown, change.object)
    references = []
    for _ in range(count):
        subject = None
        if relational and rng.random() < relational:
            subject = _relational(shown, other, change.object, rng)
        if subject is None:
            subset = plain[rng.integers(len(plain))]
            subject = "the " + _noun_phrase(_only(change.object, subset), rng)
        references.append(f"{subject} {_predicate(change, rng)}")
    return tuple(references)


def photo_captions(scene: Scene, rng: np.random.Generator, aspect: float = 4 / 3) -> tuple[str, ...]:
    """Captions of one photo, at least 4, each naming 1 to 3 of its visible objects; every visible one is named."""
    visible = np.flatnonzero(_visible_pixels(scene, aspect) >= MIN_PIXELS_ANY)
    if visible.size == 0:
        raise ValueError("the scene shows no object that a caption could name")
    captions: list[str] = []
    left: list[int] = []
    while left or len(captions) < FEWEST_PHOTO_CAPTIONS:
        if not left:
            left = list(rng.permutation(visible))
        count = min(int(rng.integers(1, 4)), len(left))
        named, left = left[:count], left[count:]
        phrases = ["a " + " ".join(scene.objects[i].attributes().values()) for i in named]
        captions.append("a photo of " + " and ".join(phrases))
    return tuple(captions)


def _predicate(change: Change, rng: np.random.Generator) -> str:
    if change.type not in ("color", "material"):
        return _pick(PREDICATES[change.type], rng)
    assert change.to is not None
    return f"{_pick(PREDICATES['turn'], rng)} {_pick(SYNONYMS[change.type][change.to[change.type]], rng)}"


def _pick(choices, rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]


def _only(thing: Thing, subset: tuple[str, ...]) -> dict[str, str]:
    return {attribute: getattr(thing, attribute) for attribute in subset}


def _telling_subsets(scene: Scene, thing: Thing) -> list[tuple[str, ...]]:
    """The sets of attributes that only this object of the scene has."""
    found = [subset for subset in _SUBSETS if len(scene.matches(_only(thing, subset))) == 1]
    assert found, "the object cannot be told apart; Triple.between leaves such pairs out"
    return found


def _noun_phrase(attributes: dict[str, str], rng: np.random.Generator) -> str:
    """The values in speaking order, each by one of its words; "thing" or "object" where the shape is left out."""
    words = [_pick(SYNONYMS[name][attributes[name]], rng) for name in ATTRIBUTES if name in attributes]
    if "shape" not in attributes:
        words.append(_pick(THING_WORDS, rng))
    return " ".join(words)


# --- Expressions by relation -------------------------------------------------------------------------------------


def relations(scene: Scene, subject: Thing, anchor: Thing) -> set[str]:
    """How `subject` stands to `anchor`: of "left", "right", "behind", "front", seen from the scene's camera."""
    right, behind = ground_directions(scene.camera)
    dx, dy = subject.x - anchor.x, subject.y - anchor.y
    sideways = dx * right[0] + dy * right[1]
    away = dx * behind[0] + dy * behind[1]
    found = set()
    if abs(sideways) > RELATION_MARGIN:
        found.add("right" if sideways > 0 else "left")
    if abs(away) > RELATION_MARGIN:
        found.add("behind" if away > 0 else "front")
    return found


def _relational(shown: Scene, other: Scene, thing: Thing, rng: np.random.Generator) -> str | None:
    """An expression for `thing` of the scene `shown` by way of other objects; None where a few tries find none.

    Places are those in `shown` seen from both cameras: an expression is used only where both agree.
    """
    views = (shown, Scene(shown.objects, other.camera, shown.lamps))
    for _ in range(12):
        form = rng.integers(4)
        if form < 2:
            found = _by_place(views, thing, 1, rng)
        elif form == 2:
            found = _by_place(views, thing, 2, rng)
        else:
            found = _by_likeness(shown, thing, rng)
        if found is not None:
            return found
    return None


def _by_place(views: tuple[Scene, Scene], thing: Thing, anchors: int, rng: np.random.Generator) -> str | None:
    """As "the <..> [that is] left of the <..>"; with two anchors "the <..> that is both .. and .. the <..>"."""
    scene = views[0]
    rest = [candidate for candidate in scene.objects if candidate is not thing and scene.singled_out(candidate)]
    if len(rest) < anchors:
        return None
    subset = _random_subset(rng)
    named = _only(thing, subset)
    # Candidates that may fit from one camera at least, and whether the thing itself fits from both.
    remaining = [scene.objects[i] for i in scene.matches(named)]
    phrases = []
    for i in rng.permutation(len(rest))[:anchors]:
        anchor = rest[i]
        sure = set.intersection(*(relations(view, thing, anchor) for view in views))
        if not sure:
            return None
        relation = sorted(sure)[rng.integers(len(sure))]
        remaining = [
            candidate
            for candidate in remaining
            if candidate is not anchor and any(relation in relations(view, candidate, anchor) for view in views)
        ]
        telling = _telling_subsets(scene, anchor)
        anchor_phrase = _noun_phrase(_only(anchor, telling[rng.integers(len(telling))]), rng)
        phrases.append(f"{_pick(RELATION_WORDS[relation], rng)} the {anchor_phrase}")
    if remaining != [thing]:
        return None
    if anchors == 1:
        return f"the {_noun_phrase(named, rng)} {_pick(('', 'that is '), rng)}{phrases[0]}"
    return f"the {_noun_phrase(named, rng)} that is {_pick(('', 'both '), rng)}{phrases[0]} and {phrases[1]}"


def _by_likeness(scene: Scene, thing: Thing, rng: np.random.Generator) -> str | None:
    """As "the other <..> that is the same color as the <..>"."""
    rest = [candidate for candidate in scene.objects if candidate is not thing and scene.singled_out(candidate)]
    if not rest:
        return None
    anchor = rest[rng.integers(len(rest))]
    shared = [name for name in ATTRIBUTES if getattr(thing, name) == getattr(anchor, name)]
    if not shared:
        return None
    attribute = shared[rng.integers(len(shared))]
    named = _only(thing, tuple(name for name in _random_subset(rng) if name != attribute))
    like = {**named, attribute: getattr(anchor, attribute)}
    if [scene.objects[i] for i in scene.matches(like) if scene.objects[i] is not anchor] != [thing]:
        return None
    telling = _telling_subsets(scene, anchor)
    anchor_phrase = _noun_phrase(_only(anchor, telling[rng.integers(len(telling))]), rng)
    return f"the other {_noun_phrase(named, rng)} that is the same {attribute} as the {anchor_phrase}"


def _random_subset(rng: np.random.Generator) -> tuple[str, ...]:
    """Any set of attributes, the empty one too ("the thing left of ...")."""
    kept = rng.random(len(ATTRIBUTES)) < 0.5
    return tuple(name for name, keep in zip(ATTRIBUTES, kept, strict=True) if keep)
