"""Sentences about edited photos made wrong, by other values or other changes: candidates for negatives.

The names and the order are those of `grammar_edits`, for captions of the grammar of shards.edits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from itertools import combinations, product, zip_longest

import numpy as np

from shards.blocks.grammar import Change
from shards.edits.grammar import COLORS, DIRECTIONS, GLOBAL, LOCAL, NAMES, NO_CHANGE, PLACES, wordings
from shards.wording.claims import Truth, change_claim

Named = tuple[str, str]  # ("object" or "to", attribute)


def exchange_words(
    sentences: Sequence[str], words_used: Collection[str], rng: np.random.Generator, things: Set[str]
) -> Iterator[str]:
    """The sentences with one value exchanged for another, the attributes in turn; then with two.

    Of the whole image the kind of change is exchanged.

    A color or the name of a thing is exchanged for one in `words_used` (by the captions at large): one that no caption
    has would give the negative away.
    """
    values = _values(words_used, things)
    claims = [(sentence, claim) for sentence in sentences if (claim := change_claim(sentence, things)) is not None]
    turns: dict[Named, list[str]] = {}
    for place in rng.permutation(len(claims)):
        sentence, claim = claims[place]
        if claim.type in GLOBAL:
            kinds = [kind for kind in GLOBAL if kind != claim.type]
            turns.setdefault(("", "kind"), []).extend(
                _of_kind(sentence, claim, kinds[i]) for i in rng.permutation(len(kinds))
            )
        for named in _named(claim):
            texts = [text for value in values[named[1]] for text in _reworded(sentence, claim, {named: value})]
            turns.setdefault(named, []).extend(texts[i] for i in rng.permutation(len(texts)))
    for turn in zip_longest(*turns.values()):
        yield from (text for text in turn if text is not None)
    for place in rng.permutation(len(claims)):
        sentence, claim = claims[place]
        for pair in combinations(_named(claim), 2):
            choices = [values[attribute] for _, attribute in pair]
            drawn = {
                named: options[rng.integers(len(options))]
                for named, options in zip(pair, choices, strict=True)
                if options
            }
            yield from _reworded(sentence, claim, drawn)


def confuse_change(sentences: Sequence[str], truth: Truth, rng: np.random.Generator, things: Set[str]) -> Iterator[str]:
    """The sentences with other changes: of the same thing, or of the whole image; first a sentence of no change."""
    if truth.change is None:
        return
    if truth.change["type"] != "none":
        yield NO_CHANGE[rng.integers(len(NO_CHANGE))]
    claims = [claim for sentence in sentences if (claim := change_claim(sentence, things)) is not None]
    pairs = list(product(range(len(claims)), (*LOCAL, *GLOBAL)))
    for place in rng.permutation(len(pairs)):
        number, kind = pairs[place]
        claim = claims[number]
        if (
            kind == claim.type
            or (kind in LOCAL and not claim.object)
            or (kind == "color" and "color" not in claim.object)
        ):
            continue
        to = None
        if kind == "color":
            others = [color for color in COLORS if color != claim.object["color"]]
            to = {"color": others[rng.integers(len(others))]}
        texts = wordings(Change(kind, claim.object if kind in LOCAL else {}, to))
        yield texts[rng.integers(len(texts))]


def _values(words_used: Collection[str], things: Set[str]) -> dict[str, list[str]]:
    """The values of each attribute that captions have."""
    names = [name for name in sorted({*NAMES, *things}) if all(word in words_used for word in name.split())]
    colors = [color for color in COLORS if color in words_used]
    return {"shape": names, "color": colors, "place": list(PLACES), "direction": list(DIRECTIONS)}


def _named(claim: Change) -> list[Named]:
    return [("object", name) for name in claim.object] + [("to", name) for name in claim.to or {}]


def _of_kind(sentence: str, claim: Change, kind: str) -> str:
    """A sentence of another change of the whole image, with the same subject."""
    own, other = wordings(claim), wordings(Change(kind))
    return other[own.index(sentence) * len(other) // len(own)] if sentence in own else other[0]


def _reworded(sentence: str, claim: Change, values: dict[Named, str]) -> Iterator[str]:
    """The sentence with other values in the same words; nothing if it then says that something became what it was."""
    thing, to = dict(claim.object), dict(claim.to or {})
    for (part, attribute), value in values.items():
        (thing if part == "object" else to)[attribute] = value
    if any(thing.get(attribute) == value for attribute, value in to.items()):
        return
    own, other = wordings(claim), wordings(Change(claim.type, thing, to or None))
    if sentence in own and (text := other[own.index(sentence)]) != sentence:
        yield text
