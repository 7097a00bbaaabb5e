"""Sentences by which nothing has changed, in whatever language, learnt from the pairs that are marked unchanged.

`shards.wording.claims` reads English. Of captions in another language it takes every sentence for a change. There the
marks tell: what is said of several pairs marked unchanged, and hardly of any other, says that nothing changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shards.format.record import Record
from shards.wording.claims import NONE, plain, says_no_change

FEWEST = 2  # pairs marked unchanged that must have the sentence: a single one may be a mistake
SHARE = 0.9  # of the pairs with the sentence that must be marked unchanged
READ = 0.5  # share of the pairs marked unchanged from which the rules of English read the language


def learn_denials(records: Sequence[Record]) -> frozenset[str]:
    """The sentences, as `claims.plain` makes them, that say "no change" in the language of the captions.

    From the training split if it has a pair marked unchanged, else from all.

    Empty where the rules of English read half of the pairs marked unchanged, or find more "no change" among the pairs
    marked changed: then the marks are wrong, and nothing can be learnt from them. Pairs without a mark teach nothing.
    """
    said_of: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    pairs: Counter[bool] = Counter()
    read: Counter[bool] = Counter()
    trained = any(record.split == "train" and record.changed is False for record in records)
    for record in records:
        if trained and record.split != "train":
            continue
        if record.kind == "pair" and record.changed is not None and record.captions:
            pairs[record.changed] += 1
            read[record.changed] += any(map(says_no_change, record.captions))
            said_of[record.changed].update({plain(caption) for caption in record.captions})
    if read[False] >= READ * pairs[False] or read[True] > read[False]:
        return NONE
    return frozenset(
        sentence
        for sentence, count in said_of[False].items()
        if sentence and count >= FEWEST and count >= SHARE * (count + said_of[True][sentence])
    )
