"""References of an edited photo: sentences that name different attributes of its change."""

from __future__ import annotations

import numpy as np

from shards.blocks.grammar import Change
from shards.edits.grammar import wordings

REFERENCES = 5
# How often a sentence names each of what it may leave out.
NAMED = {"color": 0.8, "place": 0.7, "to place": 0.8, "to direction": 0.7}
_TRIES = 8


def captions_for(change: Change, rng: np.random.Generator) -> tuple[str, ...]:
    """REFERENCES sentences that state the change, different ones as far as a few draws give them."""
    found: list[str] = []
    while len(found) < REFERENCES:
        for _ in range(_TRIES):
            sentences = wordings(_shortened(change, rng))
            sentence = sentences[rng.integers(len(sentences))]
            if sentence not in found:
                break
        found.append(sentence)
    return tuple(found)


def _shortened(change: Change, rng: np.random.Generator) -> Change:
    """The change with some attributes left out: never the name of the thing, nor its new color."""
    named = {name: value for name, value in change.object.items() if rng.random() < NAMED.get(name, 1.0)}
    to = {name: value for name, value in (change.to or {}).items() if rng.random() < NAMED.get(f"to {name}", 1.0)}
    return Change(change.type, named, to or None)
