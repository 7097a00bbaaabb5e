"""Augmentation: how the images of a sample are shown in a step, so that what is said of them stays true.

What is drawn is a function of (seed, epoch, position), as everything is: the same on any number of workers and after
any restart. Light and place are drawn for each image by itself, as two photos of one scene differ. Both images of a
pair are mirrored or none, and none where a sentence names a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.config.fields import AugmentConfig
from cluster.images.look import Look
from shards.wording.pictures import names_a_side, speaks_of_framing, speaks_of_light


def draw_looks(augment: AugmentConfig, record: dict, roles: Sequence[str], rng: np.random.Generator) -> dict[str, Look]:
    """A look for each image of a sample; as many numbers are drawn whatever is said of it.

    record: its json, whose captions and negatives decide what may be done.
    """
    said = [*record.get("captions", ()), *(text for texts in record.get("negatives", {}).values() for text in texts)]
    mirrored = bool(rng.random() < 0.5) and augment.mirror and not names_a_side(said)
    light = 0.0 if speaks_of_light(said) else augment.light
    crop = 0.0 if speaks_of_framing(said) else augment.crop
    looks = {}
    for role in roles:
        cut, factors = rng.random(4) * crop / 2, 1 + light * (2 * rng.random(3) - 1)
        looks[role] = Look._make([*cut.tolist(), *factors.tolist(), mirrored])
    return looks
