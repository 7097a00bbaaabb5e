"""What a sentence claims of a sample, and whether that may be true: so that no true sentence serves as a negative.

Sentences about blocks (and CLEVR) are read by the grammar of shards.blocks, those about edited photos by that of
shards.edits, and compared with the truth of the sample: the source's own, or what its references say together. Other
text is compared word by word with the references, and with the captions of pairs that share an image with it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any

from shards.blocks import grammar
from shards.edits import grammar as edits
from shards.format.record import Record
from shards.wording.lexicons.lexicon import Lexicon
from shards.wording.segmentation import words_of

NEAR_EQUAL = 0.8  # share of common words from which two sentences count as the same
NEWS = 0.2  # a sentence with a smaller share of words (or fewer than two) that the references lack may repeat them
_EMPTY_WORDS = frozenset(
    "a an the this that these it its it's his her their s is are was were be been being has have had do does of in on "
    "at to from by with and or but while whereas there here as than also now very more slightly appear appears seem "
    "seems look looks i you image images picture pictures photo photos scene after before".split()
)
_IMAGE = r"(?:images?|pictures?|photos?|photographs?|scenes?|views?|shots?|frames?)"
_NOTHING_CHANGED = re.compile(
    r"\b(?:no|without) (?!other |further |more )(?:\w+ )?(?:differences?|changes?)\b"
    r"|\b(?:are|is|looks?|appears?|seems?|be|images|pictures|photos) (?:(?!not )\w+ )?identical\b"
    r"|\bremains? unchanged\b|\b(?:scene|image|picture|photo|everything) (?:is|looks|seems) unchanged\b"
    r"|\b(?:scenes?|images?|pictures?|photos?|they) (?:has|have|did|do|does|are|is)(?: not|n['\u2019]t) "
    r"(?:changed?|differ|different)\b"
    r"|\b(?:are|is|be|looks?|appears?|seems?|remains?|stays?) (?:to be )?(?:(?!not )\w+ ){0,3}the (?:exact )?same"
    rf"(?: (?:as before|animal|bird|{_IMAGE}))?(?: to me)?\s*(?:\.|$)"
    r"|\bexactly the same\b"
    r"|\b(?:images|pictures|photos|both|they) (?:are|look) (?:equal|alike)\b"
    r"|\b(?:everything|all|it) (?:is|looks) (?:as|like) before\b"
    r"|\bnothing(?:['\u2019]s)? (?:in the (?:\w+ )?(?:image|picture|photo|scene|shot|frame) )?"
    r"(?:appears to have |seems to have |has |is |was )?(?:changed|differs|different|modified)\b"
    rf"|^(?:nothing|none|unchanged|identical(?: {_IMAGE})?|(?:looks |the )?same(?: {_IMAGE}| as before)?)$"
    r"|^all the same$|^nothing (?:has )?(?:happened|moved|new)$|^it (?:has|did)(?: not|n['\u2019]t) changed?$"
)
_REST = re.compile(r"\b(?:otherwise|the rest|(?:other|apart|aside) (?:than|from) (?:that|this))\b")
# What follows these words takes back a part of what was said before them.
_BUT = re.compile(r"\b(?:but|except|though|although|however|(?:other|apart|aside) (?:than|from))\b")
_CACHE = 1 << 18
_ENDS = re.compile(r"[\s.!\u3002\uff01\uff0e\u0964]+$")
NONE: frozenset[str] = frozenset()
_PHOTO_PREFIXES = ("a photo of ", "a picture of ", "an image of ")


@lru_cache(maxsize=_CACHE)
def change_claim(sentence: str, things: Set[str] = NONE) -> grammar.Change | None:
    """The change that a sentence states, None where no grammar reads it (cached: templates repeat).

    `things`, a frozenset, are names of cut-outs that were pasted into photos.
    """
    return _of_blocks(sentence) or edits.parse(sentence, things)


@lru_cache(maxsize=_CACHE)
def _of_blocks(sentence: str) -> grammar.Change | None:
    return grammar.parse(sentence)


def say_truth(truth: Mapping[str, Any]) -> str | None:
    """The truth of a pair in fixed words; None where it is not known whole."""
    if set(grammar.SYNONYMS) <= set(truth["object"] or ()):
        return grammar.say(dict(truth))
    return edits.say(truth)


def is_known(truth: Mapping[str, Any] | None) -> bool:
    """Whether a truth says what has changed: a thing, or the whole image."""
    if not truth:
        return False
    return bool(truth.get("object") or truth["type"] in edits.GLOBAL)


@lru_cache(maxsize=_CACHE)
def photo_claim(sentence: str) -> tuple[tuple[tuple[str, str], ...], ...] | None:
    """The objects that a caption of one photo names, each as sorted (attribute, value) pairs; None if it is unreadable.

    "a photo of a large red metal cube and a blue ball" names two.
    """
    text = " ".join(sentence.lower().rstrip(" .").split())
    for prefix in _PHOTO_PREFIXES:
        text = text.removeprefix(prefix)
    named = []
    for phrase in text.split(" and "):
        article, *words = phrase.split()
        attributes = {}
        for word in words:
            if word in grammar.THING_WORDS and word == words[-1]:
                continue
            meaning = grammar.WORDS.get(word)
            if meaning is None or meaning[0] in attributes:
                return None
            attributes[meaning[0]] = meaning[1]
        if article not in ("a", "an", "the") or not words:
            return None
        named.append(tuple(sorted(attributes.items())))
    return tuple(named)


def claim_key(kind: str, sentence: str) -> Hashable:
    """Two sentences with one key say the same in other words; unreadable sentences are their own key."""
    if kind == "photo":
        named = photo_claim(sentence)
        return sentence if named is None else tuple(sorted(named))
    change = change_claim(sentence)
    if change is None:
        return sentence
    return change.type, tuple(sorted(change.object.items())), tuple(sorted((change.to or {}).items()))


def truth_of_references(references: Sequence[str]) -> dict | None:
    """What the references of a pair say together: {"type", "object", "to"} with the attributes they name.

    The grammar of blocks reads them; whoever edits photos knows the truth. References that cannot be read are passed
    over; None where none can, or two contradict one another.
    """
    changes = [change for change in map(_of_blocks, references) if change is not None]
    if not changes or any(change.type != changes[0].type for change in changes):
        return None
    if changes[0].type == "none":
        return {"type": "none", "object": None, "to": None}
    named: dict[str, str] = {}
    for change in changes:
        for attribute, value in change.object.items():
            if named.setdefault(attribute, value) != value:
                return None
        if change.to != changes[0].to:
            return None
    return {"type": changes[0].type, "object": named, "to": dict(changes[0].to) if changes[0].to else None}


def plain(sentence: str) -> str:
    """A sentence as learnt ones are compared: lower case, white space single, no full stop at the end."""
    return _ENDS.sub("", " ".join(sentence.lower().split()))


def says_no_change(sentence: str, learnt: Set[str] = NONE) -> bool:
    """Whether a free sentence as a whole says that there is no difference.

    "no changes other than a man by the door" does not, nor does "no change in colour but a longer beak". `learnt` are
    sentences that say so in other words (`shards.wording.denials`).
    """
    return _denies(sentence) or (bool(learnt) and plain(sentence) in learnt)


@lru_cache(maxsize=_CACHE)
def _denies(sentence: str) -> bool:
    words = " ".join(sentence.lower().rstrip(" .!").split())
    found = _NOTHING_CHANGED.search(words)
    if found is None or len(words.split()) > 20:
        return False
    return _REST.search(words) is None and _BUT.search(words, found.end()) is None


def says_change(sentence: str, learnt: Set[str] = NONE) -> bool | None:
    """Whether a sentence says that something differs; None where it says nothing at all. `learnt`: `says_no_change`."""
    if not sentence.strip():
        return None
    claim = change_claim(sentence)
    return not says_no_change(sentence, learnt) if claim is None else claim.type != "none"


@lru_cache(maxsize=_CACHE)
def _telling_words(sentence: str, lexicon: Lexicon | None) -> frozenset[str]:
    words = frozenset(words_of(sentence.lower()))
    if lexicon is None:
        return words
    return frozenset(lexicon.root.get(word, word) for word in words - _EMPTY_WORDS)


class Truth:
    """What is known to hold of one sample. `change` is the truth of a pair, as records carry it, or None.

    `related` are captions of samples that share an image with it: of free text they may hold as well. The words of a
    family of the `lexicon` ("larger", "bigger") count as one. `learnt` are sentences that say "no change" in another
    language, `things` names of cut-outs.
    """

    def __init__(
        self,
        record: Record,
        related: Iterable[str] = (),
        lexicon: Lexicon | None = None,
        learnt: Set[str] = NONE,
        things: Set[str] = NONE,
    ) -> None:
        self.change: dict | None = None
        self.objects: set[tuple[tuple[str, str], ...]] | None = None
        self._learnt = learnt
        self._things = things
        self.unchanged = record.changed is False or any(says_no_change(text, learnt) for text in record.captions)
        self._certainly_unchanged = record.changed is False
        self._references = set(record.captions)
        self._related = set(related)
        self._lexicon = lexicon
        self._words = [self._said_in(caption) for caption in record.captions]
        self._all_words = frozenset().union(*self._words)
        if record.kind == "pair":
            self.change = record.truth or truth_of_references(record.captions)
        elif record.kind == "photo":
            named = [photo_claim(caption) for caption in record.captions]
            if named and None not in named:
                self.objects = {thing for things in named for thing in things or ()}

    def may_hold(self, sentence: str) -> bool:
        """Whether the sentence may be true of the sample; what is not known counts as possible."""
        if sentence in self._references:
            return True
        if self.change is not None:
            claim = change_claim(sentence, self._things)
            if claim is not None:
                return _may_be(claim, self.change)
        elif self.objects is not None:
            named = photo_claim(sentence)
            if named is not None:
                return all(thing in self.objects or self._shows(dict(thing)) for thing in named)
        return self._may_repeat(sentence)

    def _may_repeat(self, sentence: str) -> bool:
        """The same of free text: what is near-equal to a reference, or says nothing that they together do not."""
        if says_no_change(sentence, self._learnt):
            return self.unchanged
        words = self._said_in(sentence)
        if any(len(words & own) >= NEAR_EQUAL * len(words | own) for own in self._words):
            return True
        if self._certainly_unchanged or self._lexicon is None:
            return False
        if sentence in self._related or any(own <= words for own in self._words if own):
            return True
        news = words - self._all_words
        return len(news) < max(2, NEWS * len(words)) and not any(map(self._contradicts, news))

    def _contradicts(self, word: str) -> bool:
        """Whether a word is of a group of the lexicon of which the references use another family."""
        assert self._lexicon is not None
        return any(
            not self._all_words.isdisjoint(group) and self._all_words.isdisjoint(alike)
            for group, alike in self._lexicon.rivals.get(word, ())
        )

    def repeats(self, sentence: str) -> bool:
        """Whether a sentence made from a reference is one of them again."""
        return sentence in self._references or sentence in self._related

    def _said_in(self, sentence: str) -> frozenset[str]:
        """The words of a free sentence that tell something, one for each family; all where there is no lexicon."""
        return _telling_words(sentence, self._lexicon)

    def _shows(self, attributes: dict[str, str]) -> bool:
        """Whether an object of the photo has these attributes: a caption may name fewer than it has."""
        if len(attributes) == len(grammar.SYNONYMS):
            return False  # all are named, so it would have been found as it stands
        return any(_consistent(attributes, dict(known)) for known in self.objects or ())


def _may_be(claim: grammar.Change, truth: dict) -> bool:
    """grammar.agrees, but an attribute that the truth leaves open contradicts nothing."""
    if claim.type != truth["type"]:
        return False
    if claim.type == "none":
        return True
    return _consistent(claim.object, truth["object"] or {}) and _consistent(claim.to or {}, truth["to"] or {})


def _consistent(claimed: dict[str, str], known: dict[str, str]) -> bool:
    """Whether nothing contradicts. What is "left" may be what is at the "top left"."""
    return all(
        known.get(attribute, value) == value or (attribute == "place" and value in known[attribute].split())
        for attribute, value in claimed.items()
    )
