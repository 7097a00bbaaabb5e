"""What fine-grained difference aligning draws: a caption, hard negatives, and which of the samples take part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from cluster.batches.bad_samples import Bad
from cluster.batches.samples import Arrays, Looks, Samples
from cluster.config.fields import NegativesConfig
from shards.negatives.kinds import KINDS, MATCHED, drawn_from, true_caption
from shards.negatives.text_only import draw, kept_share

Found = tuple[int, dict, Arrays]  # index, json, arrays: as `Samples.first_good` gives them


def draw_list(record: dict, negatives: NegativesConfig, rng: np.random.Generator) -> list[str]:
    """A caption of a sample and K hard negatives, the caption first; '' where the record has no more of them.

    Negatives are taken in turn from the shuffled lists of each kind. Matched ones belong to one caption.
    """
    captions, lists = record["captions"], record.get("negatives", {})
    matched = MATCHED in drawn_from(lists, negatives.kinds)
    caption = true_caption(captions) if matched else captions[rng.integers(len(captions))]
    found = draw(lists, negatives.kinds, negatives.count, rng)
    return [caption, *found] + [""] * (negatives.count - len(found))


class Participants:
    """Which samples of a folder take part, so that the text alone does not give the caption away.

    Of matched negatives those that have some. Of others all changed pairs, and of the unchanged ones a share that
    follows from what the folder's manifest tells of its negatives (`shards.negatives.text_only`). Of a folder that was
    packed before that was counted, all take part.
    """

    def __init__(self, samples: Samples, negatives: NegativesConfig) -> None:
        self._samples, self._negatives = samples, negatives
        about = samples.records.folder.manifest.get("negatives", {}).get(samples.kind, {}).get(samples.split, {})
        kinds = KINDS if MATCHED in negatives.kinds else negatives.kinds
        self._kept = kept_share(about, kinds, negatives.count) if "unchanged" in about else 1.0

    def choose(
        self,
        found: Found,
        others: Iterator[int] | None,
        rng: np.random.Generator,
        bad: list[Bad],
        looks: Looks | None = None,
    ) -> Found:
        """The sample, or the first of `others` that takes part in its place.

        Without others, as in fine-tuning, the sample itself without its negatives: it is captioned all the same.
        """
        while not self.takes_part(found[1], rng):
            if others is None:
                return found[0], found[1] | {"negatives": {}}, found[2]
            other = next(others, None)
            if other is None:
                break
            found = self._samples.first_good(chain([other], others), bad, looks)
        return found

    def takes_part(self, record: dict, rng: np.random.Generator) -> bool:
        """Whether a sample does; those of which a share does are drawn."""
        lists = record.get("negatives", {})
        if MATCHED in drawn_from(lists, self._negatives.kinds):
            return bool(lists[MATCHED])
        return self._kept == 1 or record.get("changed") is not False or rng.random() < self._kept
