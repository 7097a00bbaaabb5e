"""Sentences of scripts without spaces, spaced for metrics that count words: each character becomes a word.

The metrics cut a sentence at white space, so a Chinese one would be a single word, right as a whole or not at all.
Characters are what the field counts there. shards/wording/segmentation.py has the same rule; a test compares the two.
"""

from __future__ import annotations

import re

# Han, kana and bopomofo; Thai, Lao, Burmese and Khmer, whose vowel signs and tone marks stay with their letter.
_LETTERS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3"
    "\u0ebd-\u0ec6\u0edc-\u0edf\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3"
)
_MARKS = (
    "\u3099\u309a\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
    "\u102b-\u103e\u1056-\u1059\u17b4-\u17d3"
)
_WORD = re.compile(rf"[{_LETTERS}][{_MARKS}]*|[^\s{_LETTERS}]+")
_UNSPACED = re.compile(rf"[{_LETTERS}]")
CHARACTERS = "characters of scripts without spaces"  # said beside a tokenizer's name where it holds


def spaced(text: str) -> str:
    """The text with single spaces between its words; unchanged but for white space in scripts that have spaces."""
    return " ".join(_WORD.findall(text))


def is_unspaced(text: str) -> bool:
    """Whether a text has letters of a script without spaces."""
    return _UNSPACED.search(text) is not None
