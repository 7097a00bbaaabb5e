"""What a lexicon is: groups of words, one in place of another; the sides that are compared; phrases of change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)  # one of each: compared and hashed as itself
class Group:
    """Words of one attribute. Those of a family mean the same; one of another family makes a sentence false.

    `near` names pairs of families (by their first words) that may be said of one thing, as brown and tan. In a group of
    opposites ("longer", "shorter") the other word is false by its meaning; in any other ("red", "blue") only where
    nobody said it too. `tag` is the part of speech in which the words are meant, "" for any.
    """

    attribute: str
    families: tuple[tuple[str, ...], ...]
    near: frozenset[frozenset[str]] = frozenset()
    opposites: bool = False
    tag: str = ""

    @cached_property
    def family_of(self) -> dict[str, str]:
        """word -> first word of its family."""
        return {word: family[0] for family in self.families for word in family}

    @cached_property
    def likes(self) -> dict[str, frozenset[str]]:
        """Family -> the families that may be said of the same thing, itself among them."""
        names = [family[0] for family in self.families]
        return {a: frozenset(b for b in names if a == b or frozenset((a, b)) in self.near) for a in names}

    def alike(self, first: str, second: str) -> bool:
        """Whether two families may be said of one thing."""
        return second in self.likes[first]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What a domain offers.

    `sides` are the two names of what is compared ("animal1", "animal2"; "before", "after"), as words that are one the
    other's counterpart; where `side_nouns` is not empty a side counts only before one of these. `changes` are phrases
    of change and what may stand for them; `commands` verbs that open an instruction, and others for the same object;
    `picture_commands` those that suit a picture as a whole.
    """

    name: str
    replaced: tuple[Group, ...]
    confused: tuple[Group, ...] = ()
    sides: tuple[tuple[str, str], ...] = ()
    side_nouns: frozenset[str] = frozenset()
    changes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    picture_commands: tuple[str, ...] = ()

    @cached_property
    def groups_of(self) -> dict[str, list[Group]]:
        """word -> the groups for `replace` it is in."""
        return _by_word(self.replaced)

    @cached_property
    def things_of(self) -> dict[str, list[Group]]:
        """word -> the groups for `confuse` it is in."""
        return _by_word(self.confused)

    @cached_property
    def root(self) -> dict[str, str]:
        """word -> the first word of the first family it is in."""
        return {
            word: group.family_of[word] for group in (*self.confused, *self.replaced)[::-1] for word in group.family_of
        }

    @cached_property
    def rivals(self) -> dict[str, list[tuple[frozenset[str], frozenset[str]]]]:
        """word -> for each group it is in all words of the group, and those that may be said of the same thing."""
        found: dict[str, list[tuple[frozenset[str], frozenset[str]]]] = {}
        for group in (*self.replaced, *self.confused):
            for word, family in group.family_of.items():
                alike = frozenset(other for other, its in group.family_of.items() if group.alike(family, its))
                found.setdefault(word, []).append((frozenset(group.family_of), alike))
        return found

    @cached_property
    def counterpart(self) -> dict[str, str]:
        """Side -> the other side."""
        return {a: b for a, b in self.sides} | {b: a for a, b in self.sides}


def _by_word(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        for word in group.family_of:
            found.setdefault(word, []).append(group)
    return found


def opposites(attribute: str, *pairs: str, tag: str = "") -> tuple[Group, ...]:
    """Groups of two families each, written "larger,bigger smaller"."""
    return tuple(
        Group(attribute, tuple(tuple(side.split(",")) for side in pair.split()), opposites=True, tag=tag)
        for pair in pairs
    )


def families(attribute: str, text: str, near: str = "", tag: str = "") -> Group:
    """A group written "black | gray,grey,silver | ..." with `near` as "black-gray ..."."""
    return Group(
        attribute,
        tuple(tuple(family.strip().split(",")) for family in text.split("|")),
        frozenset(frozenset(pair.split("-")) for pair in near.split()),
        tag=tag,
    )
