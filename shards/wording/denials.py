"""Sentences by which nothing has changed, in whatever words, learnt from the pairs that are marked unchanged.

`shards.wording.claims` reads English, and takes every sentence that it does not know for a change. There the marks
tell: what is said of several pairs marked unchanged, and hardly of any other, says that nothing changed. Of English
captions only pairs teach whose mark is sure, because another of their captions says "no change" in known words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shards.format.record import Record
from shards.wording.claims import NONE, change_claim, plain, says_no_change

FEWEST = 2  # pairs marked unchanged that must have the sentence: a single one may be a mistake
SHARE = 0.9  # of the pairs with the sentence that must be marked unchanged
READ = 0.5  # share of the pairs marked unchanged from which the rules of English read the language


def learn_denials(records: Sequence[Record]) -> frozenset[str]:
    """The sentences, as `claims.plain` makes them, that say "no change" in the language of the captions.

    From the training split if it has a pair marked unchanged, else from all.

    Where the rules of English read half of the pairs marked unchanged, from those pairs alone, and no sentence that a
    grammar reads. Nothing where they find more "no change" among the pairs marked changed: then the marks are wrong.
    Pairs without a mark teach nothing.
    """
    said_of: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    sure: Counter[str] = Counter()
    pairs: Counter[bool] = Counter()
    read: Counter[bool] = Counter()
    trained = any(record.split == "train" and record.changed is False for record in records)
    for record in records:
        if trained and record.split != "train":
            continue
        if record.kind == "pair" and record.changed is not None and record.captions:
            known = [caption for caption in record.captions if says_no_change(caption)]
            pairs[record.changed] += 1
            read[record.changed] += bool(known)
            said_of[record.changed].update({plain(caption) for caption in record.captions})
            if known and record.changed is False:
                sure.update({plain(each) for each in record.captions if each not in known and not change_claim(each)})
    if read[True] > read[False]:
        return NONE
    taught = sure if read[False] >= READ * pairs[False] else said_of[False]
    return frozenset(
        sentence
        for sentence, count in taught.items()
        if sentence and count >= FEWEST and count >= SHARE * (count + said_of[True][sentence])
    )
