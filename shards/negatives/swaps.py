"""Free captions with the right words about the wrong thing.

The two sides swapped ("animal1", "animal2"; "before", "after"), another change, an attribute of one part given to
another, another thing in the place of the one that changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, zip_longest

import numpy as np

from shards.negatives.word_edits import Said, is_meant, other_words, sides_of
from shards.wording.lexicons.lexicon import Lexicon
from shards.wording.tagging import Text, is_plural, read

_SIDES_OR_NOW = frozenset("before after first second left right anymore but".split())
_PLACING = frozenset("in on at near by next from now".split())
_TARGET = frozenset("to from with into so that until like by using".split())


def confuse_text(
    captions: Sequence[str], lexicon: Lexicon, said: Said, usage: Mapping[str, int], rng: np.random.Generator
) -> Iterator[str]:
    """The captions with their words put to the wrong thing, the ways of doing so in turn."""
    texts = [read(captions[number]) for number in rng.permutation(len(captions))]
    ways = (_swap_sides, _change_otherwise, _swap_attributes)
    turns = [[candidate for text in texts for candidate in way(text, lexicon, said, rng)] for way in ways]
    turns.append([c for text in texts for c in _other_things(text, lexicon, said, usage, rng)])
    for turn in zip_longest(*turns):
        yield from (candidate for candidate in turn if candidate is not None)


def _swap_sides(text: Text, lexicon: Lexicon, said: Said, rng: np.random.Generator) -> list[str]:
    """Of "animal1 is larger than animal2", "animal2 is larger than animal1": all of the caption, or one sentence."""
    edits = {}
    for place, word in enumerate(text.words):
        if word in lexicon.counterpart:
            if not _is_side(text, place, lexicon):
                return []
            edits[place] = lexicon.counterpart[word]
    telling = _telling_clauses(text, edits)
    if not telling:
        return []
    found = [text.edited(edits)]
    sentences = np.cumsum([word == "." for word in text.words])
    for number in dict.fromkeys(sentences[place] for place in edits):
        part = {place: side for place, side in edits.items() if sentences[place] == number}
        both = len(set(part.values())) == 2 and len(part) < len(edits)
        if both and any(text.clauses[place] in telling for place in part):
            found.append(text.edited(part))
    return found


def _is_side(text: Text, place: int, lexicon: Lexicon) -> bool:
    """Whether the word names one of the two sides there: "the after image", "in the before", but not "after dark"."""
    if not lexicon.side_nouns:
        return True
    last = place + 1 == len(text.words) or text.tags[place + 1] in ("PUNCT", "CONJ")
    return (
        not last
        and text.words[place + 1] in lexicon.side_nouns
        or (last and text.words[place] in ("before", "after") and place > 0 and text.words[place - 1] == "the")
    )


def _telling_clauses(text: Text, edits: Mapping[int, str]) -> set[int]:
    """The clauses that say something else once the sides are swapped."""
    sides: dict[int, set[str]] = {}
    rests: dict[int, list[str]] = {}
    for place, (word, clause) in enumerate(zip(text.words, text.clauses, strict=True)):
        if place in edits:
            sides.setdefault(clause, set()).add(word)
        elif text.tags[place] not in ("PUNCT", "CONJ"):
            rests.setdefault(clause, []).append(word)
    told: dict[tuple[str, ...], set[str]] = {}  # what is told -> the sides it is told of
    for clause, names in sides.items():
        told.setdefault(tuple(rests.get(clause, ())), set()).update(names)
    telling = set()
    for clause in sides.keys() - text.alike:
        rest = rests.get(clause, [])
        if len(told[tuple(rest)]) == 1 or "than" in rest or "compared" in rest:
            telling.add(clause)
    return telling


def _swap_attributes(text: Text, lexicon: Lexicon, said: Said, rng: np.random.Generator) -> list[str]:
    """Of "a black head and a yellow belly", "a yellow head and a black belly"."""
    sides = sides_of(text, lexicon)
    places = [
        (place, group)
        for place, word in enumerate(text.words)
        for group in lexicon.groups_of.get(word, ())
        if not group.opposites and text.head(place) and text.clauses[place] not in text.negated
        and is_meant(text, place, group, lexicon)
    ]  # fmt: skip
    found = []
    for (first, group), (second, other) in combinations(places, 2):
        words = text.words[first], text.words[second]
        heads = text.head(first), text.head(second)
        if group is not other or heads[0] == heads[1] or second - first > 14:
            continue
        if group.alike(group.family_of[words[0]], group.family_of[words[1]]):
            continue
        apart = any(text.tags[place] == "NOUN" for place in range(first + 1, second))
        doubled = any(
            new in text.words[max(0, place - 2) : place + 3] for place, new in ((first, words[1]), (second, words[0]))
        )
        spoken = said.has(sides[first], words[1], heads[0]) or said.has(sides[second], words[0], heads[1])
        if apart and not doubled and not spoken:
            found.append(text.edited({first: words[1], second: words[0]}))
    rng.shuffle(found)
    return found[:3]


def _other_things(
    text: Text, lexicon: Lexicon, said: Said, usage: Mapping[str, int], rng: np.random.Generator
) -> list[str]:
    """Of "the car is gone", "the truck is gone"."""
    found = []
    for place, word in enumerate(text.words):
        compound = "NOUN" in text.tags[max(0, place - 1) : place] + text.tags[place + 1 : place + 2]
        for group in () if compound else lexicon.things_of.get(word, ()):
            for new in other_words(text, place, group, lexicon, said, "", usage, rng):
                found.append(text.edited({place: new}))
    rng.shuffle(found)
    return found[:3]


def _change_otherwise(text: Text, lexicon: Lexicon, said: Said, rng: np.random.Generator) -> list[str]:
    """Of "the car is gone", "the car has appeared"; of "brighten the sky", "darken the sky"."""
    found = []
    spoken = " ".join(text.words)
    for phrase, others in lexicon.changes:
        if phrase not in spoken:
            continue
        old = phrase.split()
        for place in range(len(text.words) - len(old) + 1):
            if text.words[place : place + len(old)] != old or not _ends_well(text, place, old):
                continue
            new = others[rng.integers(len(others))]
            edits = {place: new, **{place + i: "" for i in range(1, len(old))}}
            found.append(text.edited(edits))
        if found:
            break
    return found[:2] + _other_commands(text, lexicon, rng)


def _ends_well(text: Text, place: int, phrase: list[str]) -> bool:
    """Whether another phrase of change can stand there: nothing follows that goes with this one alone."""
    if place and text.words[place - 1] in ("has", "have", "no", "not", "t"):
        return False
    if "there" in phrase:  # "there is a car that was not there before" cannot be turned round by one word
        return not text.negated and len(text.words) <= 12 and not _SIDES_OR_NOW.intersection(text.words)
    if not {"longer", "still"}.isdisjoint(phrase):
        return True
    end = place + len(phrase)
    return end == len(text.words) or text.tags[end] in ("PUNCT", "CONJ") or text.words[end] in _PLACING


def _other_commands(text: Text, lexicon: Lexicon, rng: np.random.Generator) -> list[str]:
    """The instruction with another verb; none where it names a target ("to", "from", "with")."""
    others = dict(lexicon.commands).get(text.words[0], ()) if text.words else ()
    article = text.words[1] if len(text.words) > 1 else ""
    if not others or not _TARGET.isdisjoint(text.words) or article in ("all", "any", "some", "in", "up", "out"):
        return []
    if text.head(0) in lexicon.side_nouns and text.words[0] in lexicon.picture_commands + ("lighten",):
        alike = {text.words[0], "brighten" if text.words[0] == "lighten" else ""}
        others = [verb for verb in lexicon.picture_commands if verb not in alike]
    found = []
    for new in rng.permutation(np.array(others)):
        edits = {0: str(new)}
        if new == "remove" and article in ("a", "an"):
            edits[1] = "the"
        if new == "add" and article == "the":
            edits[1] = "" if is_plural(text.head(1)) else "a"
            if text.tags[2:3] and edits[1] and text.words[2][0] in "aeio":
                edits[1] = "an"
        found.append(text.edited(edits))
    return found
