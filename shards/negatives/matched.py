"""Matched groups: captions that are false of each other's samples, so that no text tells which is true.

A reworded sentence reads like one, and a caption's neighbours all lie around it: whoever sees the list alone picks the
true one too often (`shards.negatives.text_only`). Here samples come in groups of K + 1. Each sample brings its first
caption, and takes the others' as its negatives. So all samples of a group have the same list, in which each sentence is
true once and false K times; whatever reads the list alone is right by chance, in training too.

A group has at most one sample that says "no change", since that would be true of a second one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from shards.format.record import Record
from shards.negatives.kinds import true_caption
from shards.negatives.neighbours import nearest_captions
from shards.order import permutation
from shards.wording.claims import Truth

PASSES = 4  # over the samples that have found no whole group; the last one takes groups that are not whole
TRIED = 8  # samples that say "no change" which are tried for a group


class Matcher:
    """Makes the groups of the samples of one kind and split."""

    def __init__(self, records: Sequence[Record], truths: Sequence[Truth], denies: Sequence[bool], seed: int) -> None:
        """truths: one a record. denies: whether its first caption says that nothing has changed."""
        self._records, self._truths, self._seed = records, truths, seed
        self._said = [true_caption(record.captions) if record.captions else "" for record in records]
        order = permutation.permute(np.arange(len(records)), len(records), seed, 0).tolist()
        self._speaking = [place for place in order if self._said[place] and not denies[place]]
        self._denying = deque(place for place in order if self._said[place] and denies[place])
        self._showing: dict[str, list[int]] = {}  # image -> samples that say "no change" of it
        for place in self._denying:
            for image in records[place].images.values():
                self._showing.setdefault(image, []).append(place)

    def negatives(self, count: int, neighbours: int, threads: int) -> list[list[str]]:
        """For each record up to `count` captions of the others of its group; none where it has found no group.

        neighbours: of a caption, how many of the most similar ones are looked at.
        """
        found: list[list[str]] = [[] for _ in self._records]
        for group in self._groups(count, neighbours, threads) if count else ():
            for place in group:
                found[place] = [self._said[other] for other in group if other != place]
        return found

    def _groups(self, count: int, neighbours: int, threads: int) -> Iterator[list[int]]:
        # Spread evenly over the groups, which are as many as they would be if each had one of them.
        share = min(1.0, count * len(self._denying) / max(1, len(self._speaking)))
        left, made = self._speaking, 0
        for number in range(PASSES):
            texts = {self._said[place] for place in left}
            near = nearest_captions(texts, texts, neighbours, self._seed, threads)
            free: dict[str, dict[int, None]] = {}
            for place in left:
                free.setdefault(self._said[place], {})[place] = None
            for place in left:
                if place not in free[self._said[place]]:
                    continue
                denied = int(share * (made + 1)) > int(share * made)
                wanted = count if denied else count + 1
                fewest = wanted if number < PASSES - 1 else 2 - denied
                similar = [text for text in near[self._said[place]] if free.get(text)]
                if len(similar) < fewest - 1:
                    continue
                group = self._gathered(place, similar, free, wanted)
                if len(group) < fewest:
                    continue
                for member in group:
                    del free[self._said[member]][member]
                made += 1
                yield group + (self._denier(group) if denied else [])
            left = [place for place in left if place in free[self._said[place]]]

    def _gathered(
        self, first: int, near: Iterable[str], free: Mapping[str, Mapping[int, None]], wanted: int
    ) -> list[int]:
        """A sample with up to wanted - 1 others that still are free, the most similar ones first."""
        group = [first]
        for text in near:
            if len(group) == wanted:
                break
            if text != self._said[first]:
                group += next(([place] for place in free.get(text, ()) if self._fits(place, group)), [])
        return group

    def _denier(self, group: Sequence[int]) -> list[int]:
        """A sample that says "no change" and fits, of the same image as one of the group if there is any; else none."""
        shown = (image for place in group for image in self._records[place].images.values())
        sharing = [place for image in shown for place in self._showing.get(image, ())]
        waiting = [self._denying[turn] for turn in range(min(TRIED, len(self._denying)))]
        for place in (*sharing, *waiting):
            if self._fits(place, group):
                self._denying.remove(place)
                for image in self._records[place].images.values():
                    self._showing[image].remove(place)
                return [place]
        return []

    def _fits(self, place: int, group: Iterable[int]) -> bool:
        """Whether the caption of a sample is false of each of the group, and theirs of it."""
        return not any(
            self._truths[other].may_hold(self._said[place]) or self._truths[place].may_hold(self._said[other])
            for other in group
        )
