"""Captions as words with parts of speech, and edited copies of them that keep their grammar.

The tagger is a small one for short descriptive English: closed word classes by list, the rest by ending, words of two
minds ("left", "light", "back") by their neighbours. It needs no data and reads the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache

_TOKEN = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
_LISTS = {
    "DET": "a an the this that these those its it's his her their my your some any no each every another both all",
    "PRON": "it they he she i you we them him us who which what there someone nobody one everything something",
    "AUX": "is are was were be been being am has have had does do did can could will would should may might must isn't "
    "aren't wasn't doesn't don't hasn't haven't isn aren wasn doesn don hasn haven",
    "PREP": "of in on at by with from to into onto for near behind beside besides between under over above below "
    "across through around along toward towards inside outside without within against beneath underneath than like as "
    "past off out up down away throughout upon except about next",
    "CONJ": "and or but while whereas whilst although though because if so then however when where nor",
    "ADV": "now very slightly much more less not also too only still longer anymore almost again just together here "
    "mostly somewhat further farther closer away instead however yet even most least never",
    "NUM": "two three four five six seven eight nine ten 2 3 4 5 6 7 8 9 10 couple several many few",
    "VERB": "appear appears appeared disappear disappears disappeared move moves moved gone left missing added removed "
    "remove delete erase add insert change make take put turn replace brighten lighten darken increase decrease reduce "
    "raise enlarge shrink sharpen blur crop rotate flip zoom adjust give get use cover show shows look looks looking "
    "seem seems walk walks walking standing sitting driving parked pulling turning leaving entering exiting crossing "
    "holding wearing carrying talking going coming stands sits see seen built",
    "ADJ": "light dark bright dull big small little tiny large huge long short tall wide narrow thick thin round "
    "sharp fat slim new old same different similar identical open closed empty full other whole entire main white "
    "black grey gray red green blue yellow orange purple pink brown tan silver gold maroon beige burgundy visible "
    "solid pale blunt straight curved pointed fluffy sleek smooth lean skinny slender plump chubby broad muted vivid "
    "vibrant horizontal vertical upper lower first second third last right far overall back front top bottom middle "
    "center extra single",
}
_KNOWN = {word: tag for tag, words in reversed(_LISTS.items()) for word in words.split()}
FUNCTION_WORDS = frozenset(word for word, tag in _KNOWN.items() if tag in ("DET", "PRON", "AUX", "PREP", "CONJ"))
_ENDINGS = (("belly", "NOUN"), ("ly", "ADV"), ("ed", "VERB"), ("ish", "ADJ"), ("ier", "ADJ"), ("est", "ADJ"),
            ("ful", "ADJ"), ("ous", "ADJ"), ("less", "ADJ"), ("able", "ADJ"), ("ical", "ADJ"))  # fmt: skip
_COMPARATIVE = frozenset(
    "larger bigger smaller longer shorter taller thicker thinner wider broader narrower darker lighter paler brighter "
    "duller fatter plumper stouter slimmer leaner closer nearer farther further higher lower older younger rounder "
    "blunter sharper sleeker fuller smoother rougher curvier straighter".split()
)
_IRREGULAR_PLURALS = frozenset("people men women children feet mice fish guys kids".split())
_SINGULAR_S = frozenset("bus grass glass dress canvas lens iris tarsus cross is this its has was as".split())
_BREAKS = frozenset("while whereas whilst but although however though . ; ! ? :".split())
_NOT_ONE = frozenset(
    "no not none n't without lacks lack lacking except neither nor less fewer cannot never nobody none t".split()
)
_SAME = frozenset("both same similar identical alike neither each".split())
_AN = re.compile(r"(?:[aeio]|u(?!ni|s[ae]|ti))(?!ne\b)|suv|hour|honest")


@lru_cache(maxsize=1 << 14)
def read(caption: str) -> Text:
    """The caption as a Text; the last ones are kept, as several readers follow one another."""
    return Text(caption)


class Text:
    """A caption cut into tokens: `words` in lower case, `tags` their parts of speech (PUNCT for punctuation)."""

    def __init__(self, caption: str) -> None:
        self.caption = caption
        self._found = list(_TOKEN.finditer(caption))
        self.words = [found[0].lower() for found in self._found]

    @cached_property
    def tags(self) -> list[str]:
        tags = [_tag_alone(word) for word in self.words]
        for place in range(len(tags)):
            tags[place] = self._in_context(tags, place)
        return tags

    def _in_context(self, tags: list[str], place: int) -> str:
        word, tag = self.words[place], tags[place]
        before = tags[place - 1] if place else "START"
        after = tags[place + 1] if place + 1 < len(tags) else "END"
        if word == "left":
            return "VERB" if before in ("AUX", "NOUN", "PRON", "ADV") else "ADJ"
        if word in _COMPARATIVE:
            previous = self.words[place - 1] if place else ""
            return "ADV" if previous == "no" else "ADJ"
        if (
            tag == "VERB"
            and word.endswith("ed")
            and before in ("DET", "ADJ", "NUM", "ADV")
            and after in ("NOUN", "ADJ")
        ):
            return "ADJ"
        if tag == "VERB" and before in ("DET", "ADJ", "NUM") and after != "NOUN":
            return "NOUN" if not word.endswith(("ing", "ed")) else "ADJ"
        if tag == "NOUN" and before == "START" and after in ("DET", "PRON") and len(word) > 2:
            return "VERB"
        if word in ("light", "dark", "back", "front", "top", "bottom", "middle", "center", "right", "orange", "gold"):
            return "ADJ" if after in ("NOUN", "ADJ") else "NOUN" if before in ("DET", "NOUN") else tag
        if tag == "VERB" and word.endswith(("es", "s")) and before in ("DET", "ADJ", "NUM", "PREP"):
            return "NOUN"
        return tag

    @cached_property
    def clauses(self) -> list[int]:
        """The number of the clause each token is in: they end at full stops and at "while", "but", ..."""
        numbers, number = [], 0
        for word in self.words:
            number += word in _BREAKS
            numbers.append(number)
        return numbers

    @cached_property
    def negated(self) -> set[int]:
        """Clauses that deny something: exchanging a word there may leave them true."""
        found = set()
        for place, word in enumerate(self.words):
            longer = place + 1 < len(self.words) and self.words[place + 1] == "longer"
            if (word in _NOT_ONE or word.endswith("n't")) and not (word == "no" and longer):
                found.add(self.clauses[place])
        return found

    @cached_property
    def alike(self) -> set[int]:
        """Clauses that say the same of both sides."""
        return {clause for word, clause in zip(self.words, self.clauses, strict=True) if word in _SAME}

    def head(self, place: int, reach: int = 4) -> str:
        """The noun that a word before it belongs to, '' where none follows soon in the clause."""
        for other in range(place + 1, min(place + 1 + reach, len(self.words))):
            if self.tags[other] == "NOUN" and not (other + 1 < len(self.tags) and self.tags[other + 1] == "NOUN"):
                return self.words[other]
            if self.tags[other] in ("PUNCT", "CONJ", "PREP", "AUX", "VERB") and self.words[other] not in ("and", "or"):
                return ""
        return ""

    def edited(self, edits: Mapping[int, str]) -> str:
        """The caption with some tokens exchanged ('' takes one out), "a" and "an" before them set right."""
        edits = dict(edits)
        for place in list(edits):
            article = place - 1
            if place and edits[place] and edits.get(article, self.words[article]) in ("a", "an"):
                edits[article] = "an" if _AN.match(edits[place]) else "a"
        parts, end = [], 0
        for place, found in enumerate(self._found):
            gap, token = self.caption[end : found.start()], found[0]
            end = found.end()
            if place not in edits:
                parts += [gap, token]
            elif edits[place]:
                parts += [gap, edits[place].capitalize() if token[0].isupper() else edits[place]]
        return "".join([*parts, self.caption[end:]]).strip()


@lru_cache(maxsize=1 << 16)
def _tag_alone(word: str) -> str:
    if not word[0].isalnum():
        return "PUNCT"
    if word in _KNOWN:
        return _KNOWN[word]
    for ending, tag in _ENDINGS:
        if word == ending or (word.endswith(ending) and len(word) > len(ending) + 2):
            return tag
    return "NOUN"


def is_plural(noun: str) -> bool:
    """Whether a noun stands for several things."""
    return noun in _IRREGULAR_PLURALS or (noun.endswith("s") and not noun.endswith("ss") and noun not in _SINGULAR_S)
