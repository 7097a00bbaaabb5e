"""Which lexicon fits a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shards.wording.lexicons.birds import BIRDS, MARKS
from shards.wording.lexicons.generic import GENERIC
from shards.wording.lexicons.lexicon import Lexicon

_READ = 0.5  # share of captions that a lexicon must read to be chosen
_LOOKED_AT = 2000  # captions, evenly spread


def choose_lexicon(captions: Sequence[str]) -> Lexicon:
    """The lexicon of birds where half of the captions name a bird's part or a bird, and the generic one elsewhere."""
    step = max(1, len(captions) // _LOOKED_AT)
    looked_at = captions[::step]
    marked = sum(not MARKS.isdisjoint(re.findall(r"\w+", caption.lower())) for caption in looked_at)
    return BIRDS if looked_at and marked >= _READ * len(looked_at) else GENERIC
