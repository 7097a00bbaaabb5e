"""Noun phrases that captions use again and again: names for what there is to see, where nobody has labelled it.

"a photo of a large red cube and a dog" -> "photo", "large red cube", "dog".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from shards import tagging

LONGEST = 5  # words of a phrase
FEWEST = 5  # captions that must have it
MOST_SHARE = 0.5  # of the captions: what is in more of them ("photo") tells nothing apart


def noun_phrases(caption: str) -> list[str]:
    """The longest runs of adjectives and nouns that end in a noun, in lower case."""
    text, found, run = tagging.read(caption), [], []
    for word, tag in (*zip(text.words, text.tags, strict=True), ("", "END")):
        if tag in ("ADJ", "NOUN"):
            run.append((word, tag))
            continue
        while run and run[-1][1] != "NOUN":
            run.pop()
        if run:
            found.append(" ".join(word for word, _ in run[-LONGEST:]))
        run = []
    return found


def frequent_phrases(captions: Sequence[str], limit: int) -> list[str]:
    """At most `limit` phrases by the number of captions that have them, the most frequent first."""
    counts = Counter(phrase for caption in captions for phrase in set(noun_phrases(caption)))
    most = MOST_SHARE * len(captions)
    kept = [(-count, phrase) for phrase, count in counts.items() if FEWEST <= count <= most]
    return [phrase for _, phrase in sorted(kept)[:limit]]


class PhraseFinder:
    """Which of some names captions have, as whole words in a row."""

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {tuple(name.lower().split()): number for number, name in enumerate(names)}
        self._lengths = sorted({len(words) for words in self._number})

    def numbers(self, captions: Iterable[str]) -> set[int]:
        """The numbers of all names that are in one caption or more."""
        return {number for caption in captions for number in self._in(tagging.read(caption).words)}

    def _in(self, words: Sequence[str]) -> Iterator[int]:
        for start in range(len(words)):
            for length in self._lengths:
                number = self._number.get(tuple(words[start : start + length]))
                if number is not None and start + length <= len(words):
                    yield number
