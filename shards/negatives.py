"""Hard negatives: sentences that are close to a sample's captions and not true of it, in three lists kept apart.

- retrieve: captions of other samples of the split that are most similar by TF-IDF;
- replace: a caption with one or two of its attribute or direction words exchanged;
- confuse: the right words about the wrong thing: the same object with another change, "nothing has changed" of a
  change; in captions of photos, attributes swapped between two objects.

A pair without a change says nothing of objects, so its negatives are made from the captions of the changed pairs that
share an image with it (they speak of objects that are there), or of changed pairs at random where there is none.
Replace and confuse need the grammar of shards.blocks; of text it cannot read there is retrieve alone. A list stays
shorter than asked for rather than hold a sentence that may be true (see shards.claims).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest

import numpy as np

from shards import order
from shards.claims import Truth, claim_key
from shards.neighbours import nearest_captions
from shards.record import Record
from shards.rewording import confuse_change, confuse_photo, exchange_words, flip_directions

COUNT = 6  # per list: the K = 6 of the method
SENTENCES = 4  # captions of a sample that are reworded
QUERIES = 2  # of those, how many have their neighbours looked up
NEIGHBOURS = 64  # captions looked at for each of them


def find_negatives(records: Sequence[Record], count: int = COUNT, seed: int = 0) -> list[dict[str, list[str]] | None]:
    """For each record {"retrieve", "replace", "confuse"}, up to `count` distinct sentences each; None for class photos.

    A pure function of the records and the seed; samples of different splits never share text.
    """
    found: list[dict[str, list[str]] | None] = [None] * len(records)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        if record.kind != "class":
            groups.setdefault((record.kind, record.split), []).append(place)
    for places in groups.values():
        members = [records[place] for place in places]
        for place, lists in zip(places, _find_in_group(members, count, seed), strict=True):
            found[place] = lists
    return found


def _find_in_group(records: list[Record], count: int, seed: int) -> Iterator[dict[str, list[str]]]:
    """The lists of records of one kind and split."""
    kind = records[0].kind
    generators = [order.generator(seed, 0, 0, f"negatives/{record.key}") for record in records]
    speaking = _speaking(records, seed)
    sources = [_some(sentences, SENTENCES, rng) for sentences, rng in zip(speaking, generators, strict=True)]
    queries = [sentences[:QUERIES] for sentences in sources]
    pool = {caption for record in records for caption in record.captions}
    words_used = frozenset(word for caption in pool for word in caption.split())
    neighbours = nearest_captions(pool, {query for some in queries for query in some}, NEIGHBOURS, seed)
    for record, sentences, asked, rng in zip(records, sources, queries, generators, strict=True):
        truth = Truth(record)
        similar = [neighbours[query] for query in asked]
        retrieve = (sentence for rank in zip_longest(*similar) for sentence in rank if sentence is not None)
        confuse = confuse_photo if kind == "photo" else confuse_change
        yield {
            "retrieve": _choose(kind, retrieve, truth.may_hold, count),
            "replace": _replace(kind, sentences, words_used, truth, count, rng),
            "confuse": _choose(kind, confuse(sentences, truth, rng), truth.may_hold, count),
        }


def _replace(
    kind: str, sentences: list[str], words_used: frozenset[str], truth: Truth, count: int, rng: np.random.Generator
) -> list[str]:
    """Up to a third with directions turned round, where there are any, the others with attribute words exchanged."""
    flipped = list(dict.fromkeys(islice(flip_directions(sentences, rng), count // 3)))
    exchanged = exchange_words(sentences, words_used, rng)
    return flipped + _choose(kind, exchanged, truth.may_hold, count - len(flipped))


def _speaking(records: list[Record], seed: int) -> Iterator[Sequence[str]]:
    """For each record the captions its negatives are made from: its own, or a changed pair's where it has no change."""
    sharing: dict[str, list[Record]] = {}
    changed = [record for record in records if not _is_unchanged(record) and record.captions]
    for record in changed:
        for image in record.images.values():
            sharing.setdefault(image, []).append(record)
    for record in records:
        if not _is_unchanged(record):
            yield record.captions
            continue
        others = [other for image in record.images.values() for other in sharing.get(image, ())]
        if not others and changed:
            rng = order.generator(seed, 0, 0, f"other/{record.key}")
            others = [changed[place] for place in rng.integers(len(changed), size=3)]
        yield tuple(caption for other in others for caption in other.captions)


def _is_unchanged(record: Record) -> bool:
    return record.kind == "pair" and record.changed is False


def _some(sentences: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` distinct sentences in a drawn order."""
    distinct = list(dict.fromkeys(sentences))
    return [distinct[place] for place in rng.permutation(len(distinct))[:count]]


def _choose(kind: str, candidates: Iterable[str], may_hold: Callable[[str], bool], count: int) -> list[str]:
    """The first `count` candidates that cannot be true, those that say something new first."""
    chosen: list[str] = []
    repeated: list[str] = []
    said: set[Hashable] = set()
    for sentence in candidates:
        if len(chosen) == count:
            break
        if sentence in chosen or sentence in repeated or may_hold(sentence):
            continue
        key = claim_key(kind, sentence)
        (repeated if key in said else chosen).append(sentence)
        said.add(key)
    return (chosen + repeated)[:count]
