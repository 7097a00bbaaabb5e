"""Sentences about blocks made wrong, by other words or other changes: candidates for negatives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, product, zip_longest

import numpy as np

from shards.blocks.grammar import NO_CHANGE, OPPOSITE, PREDICATES, RELATION_WORDS, SYNONYMS, WORDS, Change
from shards.wording.claims import Truth, change_claim, photo_claim

_CHANGES = ("color", "material", "add", "drop", "move")


def _longest_first(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(pairs, key=lambda pair: (-len(pair[0]), pair))


_FLIPS = _longest_first(
    [
        (phrase, RELATION_WORDS[OPPOSITE[relation]][number % len(RELATION_WORDS[OPPOSITE[relation]])])
        for relation, phrases in RELATION_WORDS.items()
        for number, phrase in enumerate(phrases)
    ]
)
_ENDINGS = _longest_first([(phrase, kind) for kind, phrases in PREDICATES.items() for phrase in phrases])


def exchange_words(sentences: Sequence[str], words_used: Collection[str], rng: np.random.Generator) -> Iterator[str]:
    """The sentences with one attribute word exchanged for another value, the attributes in turn; then with two.

    Of the synonyms of a value those in `words_used` (by the captions at large) are taken: a word that no caption has
    would give the negative away.
    """
    slots = [
        (number, position)
        for number, sentence in enumerate(sentences)
        for position, word in enumerate(sentence.split())
        if word in WORDS
    ]
    turns: dict[str, list[tuple[int, int, str]]] = {}
    for place in rng.permutation(len(slots)):
        number, position = slots[place]
        attribute, others = _other_values(sentences[number].split()[position])
        turns.setdefault(attribute, []).extend((number, position, others[i]) for i in rng.permutation(len(others)))
    for edits in zip_longest(*turns.values()):
        for edit in edits:
            if edit is not None:
                yield from _edited(sentences[edit[0]], (edit[1:],), words_used, rng)
    for number in rng.permutation(len(sentences)):
        words = sentences[number].split()
        for pair in combinations([position for position, word in enumerate(words) if word in WORDS], 2):
            choices = [_other_values(words[position])[1] for position in pair]
            both = [
                (position, values[rng.integers(len(values))]) for position, values in zip(pair, choices, strict=True)
            ]
            yield from _edited(sentences[number], both, words_used, rng)


def flip_directions(sentences: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Readable sentences with a direction turned round: "left of" for "right of", "behind" for "in front of".

    What is left of a thing is not right of it, so these are false whatever the grammar makes of their subject.
    Sentences about a move are left alone: the direction may hold after it.
    """
    for number in rng.permutation(len(sentences)):
        sentence = sentences[number]
        claim = change_claim(sentence)
        if claim is None or claim.type in ("move", "none"):
            continue
        for phrase, opposite in _FLIPS:
            if f" {phrase} the " in sentence:
                yield sentence.replace(f" {phrase} the ", f" {opposite} the ", 1)
                break


def confuse_change(sentences: Sequence[str], truth: Truth, rng: np.random.Generator) -> Iterator[str]:
    """The objects of the sentences with other changes; and, first, a sentence of no change where there is one."""
    if truth.change is None:
        return
    if truth.change["type"] != "none":
        yield NO_CHANGE[rng.integers(len(NO_CHANGE))]
    subjects = [(subject, kind) for subject, kind in map(split_sentence, sentences) if subject]
    pairs = list(product(range(len(subjects)), _CHANGES))
    for place in rng.permutation(len(pairs)):
        number, change = pairs[place]
        subject, said = subjects[number]
        if said != change:
            yield f"{subject} {_predicate(change, subject, truth, rng)}"


def confuse_photo(sentences: Sequence[str], truth: Truth, rng: np.random.Generator) -> Iterator[str]:
    """Captions of photos with one attribute swapped between two of the objects they name."""
    for number in rng.permutation(len(sentences)):
        words = sentences[number].split()
        if photo_claim(sentences[number]) is None:
            continue
        places: dict[str, list[int]] = {}
        for position, word in enumerate(words):
            if word in WORDS:
                places.setdefault(WORDS[word][0], []).append(position)
        swaps = [pair for positions in places.values() for pair in combinations(positions, 2)]
        for place in rng.permutation(len(swaps)):
            first, second = swaps[place]
            swapped = list(words)
            swapped[first], swapped[second] = words[second], words[first]
            yield " ".join(swapped)


@lru_cache(maxsize=1 << 16)
def split_sentence(sentence: str) -> tuple[str, str]:
    """("the red cube", "drop") of "the red cube is gone"; two empty strings where the grammar cannot read it."""
    claim = change_claim(sentence)
    if claim is None or claim.type == "none":
        return "", ""
    body = sentence.rsplit(" ", 1)[0] if claim.to else sentence
    for phrase, _ in _ENDINGS:
        if body.endswith(" " + phrase):
            return body.removesuffix(" " + phrase), claim.type
    return "", ""


def _predicate(change: str, subject: str, truth: Truth, rng: np.random.Generator) -> str:
    """Words for a change, to a colour or material that the object does not have already as far as is known."""
    turning = change in ("color", "material")
    phrases = PREDICATES["turn" if turning else change]
    phrase = phrases[rng.integers(len(phrases))]
    if not turning:
        return phrase
    has = {WORDS[word][1] for word in subject.split() if word in WORDS}
    has |= set(((truth.change or {}).get("object") or {}).values())
    values = [value for value in SYNONYMS[change] if value not in has] or list(SYNONYMS[change])
    words = SYNONYMS[change][values[rng.integers(len(values))]]
    return f"{phrase} {words[rng.integers(len(words))]}"


def _other_values(word: str) -> tuple[str, list[str]]:
    """(attribute, its other values) of an attribute word."""
    attribute, value = WORDS[word]
    return attribute, [other for other in SYNONYMS[attribute] if other != value]


def _edited(
    sentence: str, edits: Sequence[tuple[int, str]], words_used: Collection[str], rng: np.random.Generator
) -> Iterator[str]:
    """The sentence with the words at some positions exchanged, unless it then says that a thing became what it was."""
    words = sentence.split()
    for position, value in edits:
        synonyms = SYNONYMS[WORDS[words[position]][0]][value]
        choices = [word for word in synonyms if word in words_used] or synonyms
        words[position] = choices[rng.integers(len(choices))]
    changed = " ".join(words)
    if not _says_nothing(change_claim(changed)):
        yield changed


def _says_nothing(claim: Change | None) -> bool:
    if claim is None or not claim.to:
        return False
    return all(claim.object.get(key) == value for key, value in claim.to.items())
