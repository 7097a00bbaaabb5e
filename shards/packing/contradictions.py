"""Pairs whose captions and mark cannot all be true: counted, listed, and packed all the same.

Which side is wrong only a person can say. Until then such a pair teaches both, and a score counts both as right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from shards.format.record import Record
from shards.wording.claims import says_change

MARKED_UNCHANGED = "marked unchanged, and a caption states a change"
MARKED_CHANGED = "marked changed, and a caption says that nothing changed"
MIXED = "one caption says that nothing changed, another states a change"
NAMED = 3  # ids that the line of a reason shows


class Contradiction(NamedTuple):
    """A pair by the source's name of it, what is wrong with it, and the sentences on both sides."""

    split: str
    id: str
    reason: str
    sentences: tuple[str, ...]


def find_contradictions(records: Sequence[Record], learnt: Set[str]) -> list[Contradiction]:
    """The pairs that contradict themselves, in the order of the records.

    `learnt` are sentences that say "no change" in other words (`shards.wording.denials`). What is in no language
    that is read counts as stating a change.
    """
    found = []
    for record in records:
        if record.kind != "pair":
            continue
        said = {text: says_change(text, learnt) for text in record.captions}
        changes = [text for text, change in said.items() if change is True]
        denials = [text for text, change in said.items() if change is False]
        if record.changed is False and changes:
            reason, texts = MARKED_UNCHANGED, changes[:1]
        elif record.changed is True and denials:
            reason, texts = MARKED_CHANGED, denials[:1]
        elif record.changed is None and changes and denials:
            reason, texts = MIXED, [denials[0], changes[0]]
        else:
            continue
        found.append(Contradiction(record.split, record.id, reason, tuple(texts)))
    return found


def rows(found: Sequence[Contradiction]) -> Iterator[tuple[str, ...]]:
    """The cells of each line of the list: split, id, reason, sentences."""
    for one in found:
        yield one.split, one.id, one.reason, " | ".join(one.sentences)


def describe(found: Sequence[Contradiction]) -> dict[str, dict]:
    """What the manifest says, by reason: {"pairs": how many, "first": ids}."""
    ids: dict[str, list[str]] = {}
    for one in found:
        ids.setdefault(one.reason, []).append(one.id)
    return {reason: {"pairs": len(names), "first": names[:NAMED]} for reason, names in ids.items()}


def report(told: Mapping[str, Mapping]) -> Iterator[str]:
    """One line about a manifest's entry; none where there is nothing to tell."""
    parts = [
        f"{entry['pairs']} {reason} ({', '.join(entry['first'])}{', ...' if entry['pairs'] > NAMED else ''})"
        for reason, entry in told.items()
    ]
    if parts:
        yield f"pairs that contradict themselves, packed as they are: {'; '.join(parts)}"
