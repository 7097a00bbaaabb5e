"""The recipe for edited photos, made from any folder of photos."""

from __future__ import annotations

import dataclasses

from cluster.config.fields import Config, DataConfig
from cluster.recipes.pairs import pairs


def edits() -> Config:
    """One known change of each photo of --data.edits.photos: our architecture, minutes on two cores.

    As `pairs` learns: nothing but sentences. The truth only scores it.
    """
    base = pairs()
    return dataclasses.replace(
        base, name="edits", data=DataConfig(shards="data/edits", source="edits", words=base.data.words)
    )
