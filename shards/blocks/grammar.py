"""The words of the blocks captions: what can be said, and reading a sentence back into the change it states.

Sentences are plain lower-case words separated by blanks. `parse` reads everything that `captions` can write and the
common ways of saying the same, so that a model's own sentences are judged by what they claim, not by their wording.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# The first of each list is the canonical word: the value used in scenes, truths and class names.
SYNONYMS: dict[str, dict[str, tuple[str, ...]]] = {
    "size": {"large": ("large", "big"), "small": ("small", "tiny")},
    "color": {word: (word,) for word in ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")},
    "material": {"metal": ("metal", "metallic", "shiny"), "rubber": ("rubber", "matte")},
    "shape": {"cube": ("cube", "block"), "sphere": ("sphere", "ball"), "cylinder": ("cylinder",)},
}
THING_WORDS = ("thing", "object")  # said in place of a shape
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "behind": ("behind",),
    "front": ("in front of",),
}
OPPOSITE = {"left": "right", "right": "left", "behind": "front", "front": "behind"}  # of a relation
PREDICATES: dict[str, tuple[str, ...]] = {
    "turn": ("changed to", "turned", "became"),  # colour and material: followed by the new value
    "drop": ("is gone", "is missing", "has disappeared", "is no longer there"),
    "add": ("has been added", "has appeared", "has been newly placed"),
    "move": ("changed its location", "is in a different location", "was moved from its original location"),
}
NO_CHANGE = (
    "there is no change",
    "no change was made",
    "nothing has changed",
    "nothing was modified",
    "the two scenes seem identical",
    "the scene is the same as before",
    "the scene remains the same",
)

# Said by people and models, never by our captions; understood all the same.
_MORE_PREDICATES: dict[str, tuple[str, ...]] = {
    "turn": ("changed color to", "changed material to", "changed its color to", "changed its material to",
             "is now", "has become", "has turned", "has changed to", "was changed to", "turned to", "turned into"),
    "drop": ("was removed", "has been removed", "disappeared", "is not there anymore", "was taken away"),
    "add": ("was added", "appeared", "was newly placed", "is new", "is newly placed"),
    "move": ("has moved", "moved", "was moved", "has been moved", "changed its position", "changed location",
             "is in a different position", "has changed its location", "has changed location"),
}  # fmt: skip
_MORE_NO_CHANGE = (
    "no change",
    "there is no difference",
    "there was no change",
    "nothing changed",
    "the scenes are identical",
    "the two scenes are identical",
    "the two images are identical",
    "the two scenes are the same",
    "the scene is the same",
    "the scene has not changed",
)

# word -> (attribute, canonical value)
WORDS: dict[str, tuple[str, str]] = {
    word: (attribute, value)
    for attribute, values in SYNONYMS.items()
    for value, words in values.items()
    for word in words
}
_SAID_BY_ORACLE = {
    "turn": "changed to",
    "drop": "has disappeared",
    "add": "has been added",
    "move": "changed its location",
}
_ORDER = ("size", "color", "material", "shape")


@dataclass(frozen=True)
class Change:
    """What a sentence states: the attributes it names of the changed object, and the new colour or material.

    `type` is "color", "material", "add", "drop", "move" or "none"; values are canonical words.
    """

    type: str
    object: dict[str, str] = field(default_factory=dict)
    to: dict[str, str] | None = None


def one_of(phrases: Iterable[str]) -> str:
    """A pattern of any of the phrases, the longest that fits."""
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


_RELATIONS = one_of(phrase for phrases in RELATION_WORDS.values() for phrase in phrases)
_SUBJECT = re.compile(
    r"^(?:the|a|an)\s+(?P<other>other\s+)?(?P<words>(?:\w+\s+){0,3}?\w+)"
    rf"(?P<tail>\s+(?:(?:that|which)\s+is\s+)?(?:both\s+)?(?:{_RELATIONS}|the\s+same\s+\w+\s+as)\s+(?:the|a)\s+.+)?$"
)
_ENDINGS = tuple(
    (kind, re.compile(rf"^(?P<subject>.+?)\s+(?:{one_of(PREDICATES[kind] + _MORE_PREDICATES[kind])})"
                      + (r"\s+(?P<to>\w+)$" if kind == "turn" else "$")))
    for kind in PREDICATES
)  # fmt: skip
_NOTHING = frozenset(NO_CHANGE + _MORE_NO_CHANGE)


def parse(sentence: str) -> Change | None:
    """The change that a sentence states, None where it states none that can be understood.

    Of a relational sentence ("the cube left of the red ball is gone") the subject is read: here a cube. A sentence that
    gives one attribute twice, or has a word in the subject that is not of the language, is not understood.
    """
    text = " ".join(sentence.lower().replace(".", " ").replace(",", " ").split())
    if text in _NOTHING:
        return Change("none")
    for kind, pattern in _ENDINGS:
        found = pattern.match(text)
        if found is None:
            continue
        attributes = _subject(found["subject"])
        if attributes is None:
            return None
        if kind != "turn":
            return Change(kind, attributes)
        new = WORDS.get(found["to"])
        if new is None or new[0] not in ("color", "material"):
            return None
        return Change(new[0], attributes, {new[0]: new[1]})
    return None


def _subject(text: str) -> dict[str, str] | None:
    """Attributes named by "the big red cube that is ...", None where it is no such phrase."""
    found = _SUBJECT.match(text)
    if found is None:
        return None
    attributes: dict[str, str] = {}
    words = found["words"].split()
    for position, word in enumerate(words):
        if word in THING_WORDS and position == len(words) - 1:
            continue
        if word not in WORDS:
            return None
        attribute, value = WORDS[word]
        if attribute in attributes:
            return None
        attributes[attribute] = value
    return attributes


def agrees(change: Change | None, truth: dict) -> bool:
    """Whether a parsed sentence has the right type, and every attribute and new value it names right.

    A new colour or material has to be named. `truth` is {"type", "object": {...} or None, "to": {...} or None} as
    records carry it.
    """
    if change is None or change.type != truth["type"]:
        return False
    right, new = truth["object"] or {}, truth["to"] or {}
    if any(right.get(attribute) != value for attribute, value in change.object.items()):
        return False
    if any(new.get(attribute) != value for attribute, value in (change.to or {}).items()):
        return False
    return bool(change.to) or change.type not in ("color", "material")


def say(truth: dict) -> str:
    """The truth in fixed words with all four attributes: what an oracle would answer."""
    if truth["type"] == "none":
        return NO_CHANGE[0]
    subject = "the " + " ".join(truth["object"][attribute] for attribute in _ORDER)
    if truth["type"] in ("color", "material"):
        return f"{subject} {_SAID_BY_ORACLE['turn']} {truth['to'][truth['type']]}"
    return f"{subject} {_SAID_BY_ORACLE[truth['type']]}"
