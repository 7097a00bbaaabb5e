"""A tokenizer of captions that needs no Java, in place of the COCO tools' own.

It follows the rules of the Penn Treebank that captions meet: lower case, contractions in two ("doesn't" is "does n't"),
words with hyphens and numbers whole, punctuation dropped. On free text the two differ now and then, so scores made with
this one carry its name and are not compared with published ones.
"""

from __future__ import annotations

import re

NAME = "words"

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
# Vowel signs and tone marks of scripts whose letters they belong to: no letters by themselves.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
    "\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u1056-\u1059\u17b4-\u17d3\u3099\u309a"
)
_LETTER = rf"[\w{_MARKS}]"
_CONTRACTION = r"n't|'(?:s|re|ve|ll|d|m)"
_TOKEN = re.compile(
    rf"""
    \w+(?=n't\b)                         # does|n't
    | (?:{_CONTRACTION})\b
    | \d+(?:[.,:/]\d+)+                  # 1,000  3.5  10:30  1/2
    | (?:[^\W\d_]\.){{2,}}               # u.s.
    | {_LETTER}+(?:[-&.@/]+{_LETTER}+)*  # t-shirt, and/or
    | [^\s\w]                            # any other sign by itself
    """,
    re.VERBOSE,
)
_DROPPED = frozenset("\"'`.?!,:;-\u2013\u2014\u2026")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_IN_TWO = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me"}


def words(text: str) -> str:
    """The tokens of a text, joined by blanks; empty where it has none."""
    found = (match.group() for match in _TOKEN.finditer(text.translate(_QUOTES).lower()))
    return " ".join(_BRACKETS.get(token) or _IN_TWO.get(token, token) for token in found if token not in _DROPPED)
