"""Free captions made wrong by other attribute words (colour, size, number, direction, comparatives).

What a candidate says must not be said by any caption of the sample: `Said` knows what was said, and of which side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, zip_longest

import numpy as np

from shards.wording.lexicons.lexicon import Group, Lexicon
from shards.wording.tagging import Text, is_plural, read

_SHADES = frozenset("light dark bright pale deep medium darker lighter brighter".split())
_PEOPLE_AND_TALL = ("animal", "bird", "man", "woman", "person", "people", "boy", "girl", "building", "tree", "pole")
_BEFORE_SIDE = frozenset("the far bottom top upper lower to on".split())
_PLACE_NOUNS = frozenset("side corner hand most of lane half part edge center middle third portion left right".split())
EDITS_A_WORD = 2


class Said:
    """What the captions of a sample say: the families of words, by the side they are said of."""

    def __init__(self, captions: Iterable[str], lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._families: dict[tuple[str, str], set[str]] = {}  # (attribute, side or "") -> families
        self._taken: dict[tuple[Group, str], frozenset[str]] = {}
        self._phrases: set[tuple[str, str, str]] = set()  # (side or "", word, the noun it belongs to)
        for caption in captions:
            text = read(caption)
            sides = sides_of(text, lexicon)
            for place, word in enumerate(text.words):
                for group in lexicon.groups_of.get(word, []) + lexicon.things_of.get(word, []):
                    key = group.attribute, sides[place]
                    self._families.setdefault(key, set()).add(group.family_of[word])
                    self._phrases.add((sides[place], word, text.head(place)))

    def has(self, side: str, word: str, head: str) -> bool:
        """Whether a caption has the word before this noun, of this side or of both."""
        return bool(head) and any((of, word, head) in self._phrases for of in (side, ""))

    def taken(self, group: Group, side: str) -> frozenset[str]:
        """The families of a group that may hold of this side (of any where it is ""), by what is said of it."""
        if group.opposites:
            return frozenset()
        if (group, side) not in self._taken:
            of = {side, ""} if side else {key[1] for key in self._families}
            told = [
                name for one in of for name in self._families.get((group.attribute, one), ()) if name in group.likes
            ]
            self._taken[group, side] = frozenset().union(*(group.likes[name] for name in told))
        return self._taken[group, side]


def sides_of(text: Text, lexicon: Lexicon) -> list[str]:
    """For each token the side last named before it, "" where none or both were."""
    found, side = [], ""
    for place, word in enumerate(text.words):
        if lexicon.side_nouns:
            found.append("")
            continue
        if word in lexicon.counterpart:
            # "animal1 and animal2", "animal1 and 2": what follows is said of both
            joined = place > 1 and text.words[place - 1] == "and" and text.words[place - 2] in lexicon.counterpart
            side = "" if joined or text.words[place + 1 : place + 3] == ["and", "2"] else word
        elif word in ("both", "they", "animals", "birds"):
            side = ""
        found.append(side)
    return found


def replace_words(
    captions: Sequence[str], lexicon: Lexicon, said: Said, usage: Mapping[str, int], rng: np.random.Generator
) -> Iterator[str]:
    """The captions with one attribute word exchanged, the attributes in turn; then with two.

    `usage` counts the words of all captions: the common ones are drawn more often, and unused ones (which would give a
    negative away) only where no other is left.
    """
    texts = [read(caption) for caption in captions]
    turns: dict[str, list[tuple[int, dict[int, str]]]] = {}
    for number, text in enumerate(texts):
        sides = sides_of(text, lexicon)
        for place, word in enumerate(text.words):
            for group in lexicon.groups_of.get(word, ()):
                for new in other_words(text, place, group, lexicon, said, sides[place], usage, rng):
                    turns.setdefault(group.attribute, []).append((number, _edit(text, place, new, group)))
    for edits in turns.values():
        rng.shuffle(edits)
    for turn in zip_longest(*turns.values()):
        for found in turn:
            if found is not None:
                yield texts[found[0]].edited(found[1])
    everything = [edit for edits in turns.values() for edit in edits]
    for first, second in combinations(everything[:12], 2):
        if first[0] == second[0] and not first[1].keys() & second[1].keys():
            yield texts[first[0]].edited(first[1] | second[1])


def other_words(
    text: Text,
    place: int,
    group: Group,
    lexicon: Lexicon,
    said: Said,
    side: str,
    usage: Mapping[str, int],
    rng: np.random.Generator,
) -> list[str]:
    """Up to EDITS_A_WORD words that make the caption false in place of the one there."""
    if text.clauses[place] in text.negated or not is_meant(text, place, group, lexicon):
        return []
    word, head = text.words[place], text.head(place)
    out = group.likes[group.family_of[word]] | said.taken(group, side)
    if not group.opposites:
        near_by = (other for other in text.words[max(0, place - 3) : place + 4] if other in group.family_of)
        out = out.union(*(group.likes[group.family_of[other]] for other in near_by))
    choices = []
    for new, family in group.family_of.items():
        if family in out or (group.opposites and said.has(side, new, head)):
            continue
        if family in ("black", "white") and place and text.words[place - 1] in _SHADES:
            continue
        if _fits(text, place, new, head):
            choices.append(new)
    used = [new for new in choices if usage.get(new)] or choices
    if not used:
        return []
    weights = np.array([usage.get(new, 0) + 1 for new in used], float)
    count = min(len(used), 1 if group.opposites else EDITS_A_WORD)
    chosen = [
        used[i] for i in rng.choice(len(used), min(len(used), 2 * count), replace=False, p=weights / weights.sum())
    ]
    return list({group.family_of[new]: new for new in chosen[::-1]}.values())[-count:]


def is_meant(text: Text, place: int, group: Group, lexicon: Lexicon) -> bool:
    """Whether the word stands there in the sense of the group."""
    word = text.words[place]
    before = text.words[place - 1] if place else ""
    after = text.words[place + 1] if place + 1 < len(text.words) else ""
    if group.tag and text.tags[place] != group.tag:
        return False
    if after in lexicon.side_nouns and word in lexicon.counterpart:
        return False  # a side, not an attribute
    if group.attribute == "color":
        idiom = text.words[max(0, place - 2) : place + 3]
        return not lexicon.side_nouns or not ("black" in idiom and "white" in idiom and "and" in idiom)
    if group.attribute == "direction":
        if word in ("left", "right"):
            meant = text.tags[place] != "VERB" and after not in ("next", "behind", "now", "away", "in", "by", "beside")
            return meant and (before in _BEFORE_SIDE or after in _PLACE_NOUNS)
        if word in ("top", "bottom"):
            return after in _PLACE_NOUNS or (before == "the" and place > 1 and text.words[place - 2] in ("at", "on"))
    if before in ("more", "less", "most") and word not in ("pointed", "rounded", "curved", "hooked"):
        return False  # "more slender" has no short opposite
    if word in ("closer", "nearer", "farther", "further"):
        return after not in ("to", "from", "away", "down", "up", "along", "back", "in", "into")
    if group.attribute == "number":
        return before not in lexicon.side_nouns and before != "all" and is_plural(text.head(place))
    if group.attribute == "amount":
        return after not in ("than", "or", "like") and before not in ("any", "no", "once")
    if word == "little" and after == "bit":
        return False
    if word in ("little", "first", "last", "open"):
        return text.tags[place + 1 : place + 2] == ["NOUN"] and before not in ("at",)
    return True


def _fits(text: Text, place: int, new: str, head: str) -> bool:
    """Whether a word goes with its noun: "shorter" has two opposites, and so has "more"."""
    if new in ("long", "longer", "tall", "taller"):
        nouns = [word for word, tag in zip(text.words[:place], text.tags, strict=False) if tag == "NOUN"]
        upright = (head or (nouns[-1] if nouns else "")).startswith(_PEOPLE_AND_TALL)
        return upright == new.startswith("tall")
    if new.startswith(("point", "round")):
        return bool(head)  # said of a beak or a head, not of an animal
    if new in ("less", "fewer", "few"):
        following = text.tags[place + 1 : place + 2]
        return (following == ["NOUN"] and is_plural(text.words[place + 1])) == (new != "less")
    return True


def _edit(text: Text, place: int, new: str, group: Group) -> dict[int, str]:
    """The exchange of a word; of opposites all through the caption, so that it does not contradict itself."""
    edits = {place: new}
    if group.opposites and group.attribute != "amount":  # "more" has an opposite for each noun
        old = text.words[place]
        for other, word in enumerate(text.words):
            if other != place and word in (old, new) and text.tags[other] == text.tags[place]:
                edits[other] = new if word == old else old
    return edits
