"""What fine-grained difference aligning draws: hard negatives, and which of the pairs without a change take part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from cluster.batches.bad_samples import Bad
from cluster.batches.samples import Arrays, Looks, Samples
from cluster.config.fields import NegativesConfig
from shards.negatives.text_only import draw, kept_share

Found = tuple[int, dict, Arrays]  # index, json, arrays: as `Samples.first_good` gives them


def draw_negatives(record: dict, negatives: NegativesConfig, rng: np.random.Generator) -> list[str]:
    """K hard negatives, taken in turn from the shuffled lists of each kind; '' where the record has no more of them."""
    found = draw(record.get("negatives", {}), negatives.kinds, negatives.count, rng)
    return found + [""] * (negatives.count - len(found))


class Unchanged:
    """How often the unchanged pairs of a folder take part, so that the text alone does not give the caption away.

    The rate follows from what the folder's manifest tells of its negatives (`shards.negatives.text_only`). Of a folder
    that was packed before that was counted, all take part.
    """

    def __init__(self, samples: Samples, negatives: NegativesConfig) -> None:
        self._samples = samples
        about = samples.records.folder.manifest.get("negatives", {}).get(samples.kind, {}).get(samples.split, {})
        self.kept = kept_share(about, negatives.kinds, negatives.count) if "unchanged" in about else 1.0

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
        while self.kept < 1 and found[1].get("changed") is False and rng.random() >= self.kept:
            if others is None:
                return found[0], found[1] | {"negatives": {}}, found[2]
            other = next(others, None)
            if other is None:
                break
            found = self._samples.first_good(chain([other], others), bad, looks)
        return found
