"""Hard negatives: sentences that are close to a sample's captions and not true of it, in lists kept apart.

- retrieve: captions of other samples of the split that are most similar by TF-IDF; of a changed pair up to a third of
  them say that nothing has changed, as captions of unchanged pairs do;
- replace: a caption with one or two of its attribute or direction words exchanged;
- confuse: the right words about the wrong thing: the same object with another change, "nothing has changed" of a
  change; in captions of photos, attributes swapped between two objects; in free text, the two sides swapped;
- matched: captions of the samples of a group that exchange theirs (shards.negatives.matched).

A pair without a change says nothing of objects, so its negatives are made from the captions of the changed pairs that
share an image with it (they speak of objects that are there), or of changed pairs at random where there is none.
Captions that the grammar of shards.blocks reads are reworded by it (shards.negatives.grammar_edits), those of edited
photos by theirs (shards.negatives.photo_edits), others by a lexicon (shards.negatives.word_edits,
shards.negatives.swaps). A list stays shorter than asked for rather than hold a sentence that may be true
(shards.wording.claims).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice, zip_longest

import numpy as np

from shards.blocks import grammar as blocks
from shards.errors import DataError
from shards.format.record import Record
from shards.negatives import photo_edits
from shards.negatives.grammar_edits import confuse_change, confuse_photo, exchange_words, flip_directions
from shards.negatives.kinds import ALL_KINDS, KINDS, MATCHED, true_caption
from shards.negatives.matched import Matcher
from shards.negatives.neighbours import nearest_captions
from shards.negatives.swaps import confuse_text
from shards.negatives.word_edits import Said, replace_words
from shards.order import permutation
from shards.wording.claims import NONE, Truth, change_claim, claim_key, photo_claim, says_change, says_no_change
from shards.wording.denials import learn_denials
from shards.wording.lexicons.choice import choose_lexicon
from shards.wording.lexicons.lexicon import Lexicon
from shards.wording.segmentation import is_unspaced, words_of

COUNT = 6  # per list: the K = 6 of the method
SENTENCES = 4  # captions of a sample that are reworded
QUERIES = 2  # of those, how many have their neighbours looked up
NEIGHBOURS = 64  # captions looked at for each of them
_READABLE = 0.5  # share of the captions that a grammar must read to be its own
DENIED = 1 / 3  # of the list "retrieve" of a changed pair, the most that say "no change"
_SHORT = 10  # words of a denial that is taken for any pair
_LOOKED_AT = 2000  # captions, evenly spread


def read_counts(text: str) -> int | dict[str, int]:
    """The option --negatives: "6", or "retrieve=6,replace=4" (kinds that are not named get none, if these differ).

    Raises DataError where it is neither.
    """
    if text.isdecimal():
        return int(text)
    counts = dict.fromkeys(ALL_KINDS, 0)
    for part in text.split(","):
        kind, _, number = part.partition("=")
        if kind not in counts or not number.isdecimal():
            raise DataError(
                f"--negatives is {text!r}: give a count, or one a kind, as in retrieve=6,replace=4,confuse=2"
            )
        counts[kind] = int(number)
    # As many of each kind of the paper is the same as one number, as it was before there were matched ones.
    return counts[KINDS[0]] if "matched=" not in text and len({counts[kind] for kind in KINDS}) == 1 else counts


def find_negatives(
    records: Sequence[Record], count: int | Mapping[str, int] = COUNT, seed: int = 0, workers: int | None = 1
) -> list[dict[str, list[str]] | None]:
    """For each record the lists of ALL_KINDS, each with distinct sentences; None for class photos.

    `count` is the most a list has, or the most by kind. A pure function of records, count and seed, whatever the
    workers (threads; None: one a core). Samples of different splits never share text.
    """
    counts = {kind: count if isinstance(count, int) else count.get(kind, 0) for kind in ALL_KINDS}
    found: list[dict[str, list[str]] | None] = [None] * len(records)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        if record.kind != "class":
            groups.setdefault((record.kind, record.split), []).append(place)
    things = _things(records)
    lexicons = {kind: _lexicon(kind, records, things) for kind in {kind for kind, _ in groups}}
    learnt = learn_denials(records)
    for (kind, _), places in groups.items():
        group = _Group([records[place] for place in places], lexicons[kind], counts, seed, learnt, things)
        for place, lists in zip(places, group.find(workers), strict=True):
            found[place] = lists
    return found


def _things(records: Sequence[Record]) -> frozenset[str]:
    """The names of what changes, where the truth tells them: cut-outs have names that no grammar knows."""
    objects = (record.truth.get("object") for record in records if record.truth)
    return frozenset(thing["shape"] for thing in objects if thing and "shape" in thing and "place" in thing)


def _lexicon(kind: str, records: Sequence[Record], things: Set[str]) -> Lexicon | None:
    """The lexicon for the captions of a kind of sample; None where they are of a grammar."""
    captions = [caption for record in records if record.kind == kind for caption in record.captions]
    looked_at = captions[:: max(1, len(captions) // _LOOKED_AT)]
    read = photo_claim if kind == "photo" else partial(change_claim, things=things)
    if sum(read(caption) is not None for caption in looked_at) >= _READABLE * max(1, len(looked_at)):
        return None
    return choose_lexicon(captions)


def _of_edits(captions: Sequence[str], things: Set[str]) -> bool:
    """Whether the changes that captions state are those of edited photos rather than of blocks."""
    looked_at = captions[:: max(1, len(captions) // _LOOKED_AT)]
    claims = ((text, change_claim(text, things)) for text in looked_at)
    said = [text for text, claim in claims if claim is not None and claim.type != "none"]
    return 2 * sum(blocks.parse(text) is None for text in said) > len(said)


class _Group:
    """The records of one kind and split, between which captions may be exchanged."""

    def __init__(
        self,
        records: list[Record],
        lexicon: Lexicon | None,
        counts: dict[str, int],
        seed: int,
        learnt: Set[str],
        things: Set[str],
    ) -> None:
        """`learnt`: sentences that say "no change" in other words (`shards.wording.denials`)."""
        self.records = records
        self.learnt = learnt
        self.things = things
        self.kind = records[0].kind
        self.lexicon = lexicon
        self.counts = counts
        self.seed = seed
        self.captions = list(dict.fromkeys(caption for record in records for caption in record.captions))
        self.usage = Counter(word for caption in self.captions for word in caption.lower().split())
        self.edited = lexicon is None and self.kind == "pair" and _of_edits(self.captions, things)
        self.no_change = [] if lexicon is None else _plain_denials(records, learnt)
        unchanged = [record for record in records if is_unchanged(record, learnt)]
        self.said_of_unchanged = _plain_denials(unchanged, learnt)
        # As often among the negatives as among the captions, so that it does not give an answer away by itself.
        others = len(records) - len(unchanged)
        self.denied = min(DENIED, len(unchanged) / others) if others else 0.0

    def find(self, workers: int | None) -> Iterator[dict[str, list[str]]]:
        """The lists of each record."""
        generators = [permutation.generator(self.seed, 0, 0, f"negatives/{record.key}") for record in self.records]
        speaking = _speaking(self.records, self.seed, self.learnt)
        sources = [_some(sentences, SENTENCES, rng) for sentences, rng in zip(speaking, generators, strict=True)]
        queries = [sentences[:QUERIES] if self.counts["retrieve"] else [] for sentences in sources]
        asked = {query for some in queries for query in some}
        cores = len(os.sched_getaffinity(0))
        threads = min(workers or cores, cores)
        neighbours = nearest_captions(self.captions, asked, NEIGHBOURS, self.seed, threads)
        truths = self._truths()
        exchanged = self._matched(truths, threads)
        parts = zip(self.records, truths, sources, queries, generators, exchanged, strict=True)
        for record, truth, sentences, asked_here, rng, others in parts:
            similar = [neighbours[query] for query in asked_here]
            retrieve = (sentence for rank in zip_longest(*similar) for sentence in rank if sentence is not None)
            reword = self._by_grammar if self.lexicon is None else self._by_lexicon
            retrieved = _choose(self.kind, retrieve, truth.may_hold, self.counts["retrieve"])
            reworded = reword(record, sentences, truth, rng)
            yield {"retrieve": self._denying(retrieved, record, truth, rng)} | reworded | {MATCHED: others}

    def _truths(self) -> list[Truth]:
        """What is known of each record."""
        sharing = _sharing(self.records) if self.lexicon is not None else {}
        related = ([c for image in record.images.values() for c in sharing.get(image, ())] for record in self.records)
        known = (self.lexicon, self.learnt, self.things)
        return [Truth(record, of, *known) for record, of in zip(self.records, related, strict=True)]

    def _matched(self, truths: list[Truth], threads: int) -> list[list[str]]:
        """The list "matched" of each record."""
        denies = [
            self.kind == "pair"
            and bool(record.captions)
            and says_change(true_caption(record.captions), self.learnt) is False
            for record in self.records
        ]
        matcher = Matcher(self.records, truths, denies, self.seed)
        return matcher.negatives(self.counts[MATCHED], NEIGHBOURS, threads)

    def _denying(self, retrieved: list[str], record: Record, truth: Truth, rng: np.random.Generator) -> list[str]:
        """The list "retrieve" with some captions of unchanged pairs in it, in place of the least similar ones.

        Those that lack the most words of every caption make room. A share `denied` of the list on average; none if "no
        change" may be true of the sample, or is no caption.
        """
        count = self.counts["retrieve"]
        wanted = int(self.denied * count + rng.random())
        if not wanted or not self.said_of_unchanged:
            return retrieved
        drawn = [self.said_of_unchanged[place] for place in rng.integers(len(self.said_of_unchanged), size=4 * wanted)]
        denials = [text for text in dict.fromkeys(drawn) if not truth.may_hold(text)][:wanted]
        others = [text for text in retrieved if text not in denials]
        own = [set(words_of(caption)) for caption in record.captions]
        lacked = [min(len(words.difference(words_of(text))) for words in own) for text in others]
        kept = sorted(range(len(others)), key=lambda place: (lacked[place], place))[: count - len(denials)]
        return [others[place] for place in sorted(kept)] + denials

    def _by_grammar(
        self, record: Record, sentences: list[str], truth: Truth, rng: np.random.Generator
    ) -> dict[str, list[str]]:
        """The list "replace", up to a third with directions turned round where there are any, and "confuse"."""
        count = self.counts["replace"]
        if self.edited:
            exchanged = photo_edits.exchange_words(sentences, self.usage.keys(), rng, self.things)
            confused = photo_edits.confuse_change(sentences, truth, rng, self.things)
            return {
                "replace": _choose(self.kind, exchanged, truth.may_hold, count),
                "confuse": _choose(self.kind, confused, truth.may_hold, self.counts["confuse"]),
            }
        flipped = list(dict.fromkeys(islice(flip_directions(sentences, rng), count // 3)))
        exchanged = exchange_words(sentences, self.usage.keys(), rng)
        confuse = confuse_photo if self.kind == "photo" else confuse_change
        confused = confuse(sentences, truth, rng)
        return {
            "replace": flipped + _choose(self.kind, exchanged, truth.may_hold, count - len(flipped)),
            "confuse": _choose(self.kind, confused, truth.may_hold, self.counts["confuse"]),
        }

    def _by_lexicon(
        self, record: Record, sentences: list[str], truth: Truth, rng: np.random.Generator
    ) -> dict[str, list[str]]:
        assert self.lexicon is not None
        said = Said(record.captions, self.lexicon)
        sentences = [sentence for sentence in sentences if not says_no_change(sentence, self.learnt)]
        replaced = replace_words(sentences, self.lexicon, said, self.usage, rng)
        confused = list(islice(confuse_text(sentences, self.lexicon, said, self.usage, rng), 64))
        if self.no_change and not truth.unchanged and confused:
            confused.insert(1, self.no_change[rng.integers(len(self.no_change))])
        return {
            "replace": _choose(self.kind, replaced, truth.repeats, self.counts["replace"]),
            "confuse": _choose(self.kind, confused, truth.repeats, self.counts["confuse"]),
        }


def _plain_denials(records: list[Record], learnt: Set[str]) -> list[str]:
    """The short captions by which nothing has changed, as often as they are said."""
    captions = [caption for record in records for caption in record.captions]
    return [text for text in captions if _is_short(text) and says_change(text, learnt) is False]


def _is_short(text: str) -> bool:
    return len(words_of(text)) <= (2 * _SHORT if is_unspaced(text) else _SHORT)  # a word is about two characters


def _sharing(records: list[Record]) -> dict[str, list[str]]:
    """image -> captions of the records that show it."""
    found: dict[str, list[str]] = {}
    for record in records:
        for image in record.images.values():
            found.setdefault(image, []).extend(record.captions)
    return found


def _speaking(records: list[Record], seed: int, learnt: Set[str]) -> Iterator[Sequence[str]]:
    """For each record the captions its negatives are made from: its own, or a changed pair's where it has no change."""
    sharing: dict[str, list[Record]] = {}
    changed = [record for record in records if not is_unchanged(record, learnt) and record.captions]
    for record in changed:
        for image in record.images.values():
            sharing.setdefault(image, []).append(record)
    for record in records:
        if not is_unchanged(record, learnt):
            yield record.captions
            continue
        others = [other for image in record.images.values() for other in sharing.get(image, ())]
        if not others and changed:
            rng = permutation.generator(seed, 0, 0, f"other/{record.key}")
            others = [changed[place] for place in rng.integers(len(changed), size=3)]
        yield tuple(caption for other in others for caption in other.captions)


def is_unchanged(record: Record, learnt: Set[str] = NONE) -> bool:
    """Whether a sample is a pair without a change: by its mark, or, where it has none, by all of its captions."""
    if record.kind != "pair" or record.changed is not None:
        return record.kind == "pair" and record.changed is False
    return bool(record.captions) and all(says_change(caption, learnt) is False for caption in record.captions)


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
