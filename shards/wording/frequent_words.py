"""Words and names in captions: what there is to see, where nobody has labelled it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from shards.wording import tagging

FEWEST = 5  # captions that must have a word
MOST_SHARE = 0.5  # of the captions: what is in more of them ("photo") tells nothing apart
# Words that say nothing of how a thing looks: where it is, what is compared, and the pictures themselves.
NOT_SEEN = frozenset(
    "left right top bottom upper lower middle center centre corner side edge front back far near background foreground "
    "first second third last next location position place spot area part half "
    "same different similar identical other new old extra additional single whole entire change difference "
    "image images picture pictures photo photos photograph photographs shot frame scene version animal1 animal2".split()
)


def frequent_words(captions: Sequence[str], limit: int) -> list[str]:
    """At most `limit` adjectives and nouns by the number of captions that have them, the most frequent first; without
    those that say nothing of looks."""
    counts = Counter(word for caption in captions for word in _describing(caption))
    most = MOST_SHARE * len(captions)
    kept = [(-count, word) for word, count in counts.items() if FEWEST <= count <= most]
    return [word for _, word in sorted(kept)[:limit]]


def _describing(caption: str) -> set[str]:
    text = tagging.read(caption)
    return {word for word, tag in zip(text.words, text.tags, strict=True) if tag in ("ADJ", "NOUN")} - NOT_SEEN


class NameFinder:
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
