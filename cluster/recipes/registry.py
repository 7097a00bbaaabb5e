"""Recipes: functions that return a complete configuration. `cluster/train.py NAME` runs the one of that name."""

from __future__ import annotations

from collections.abc import Callable

from cluster.config.fields import Config
from cluster.recipes.blocks import blocks, blocks_full, blocks_paper
from cluster.recipes.edits import edits
from cluster.recipes.pairs import pairs
from cluster.recipes.published import birds_to_words, clevr_change, image_editing_request, spot_the_diff
from cluster.recipes.tiny import tiny

RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        blocks, pairs, edits, blocks_paper, blocks_full, clevr_change, birds_to_words, spot_the_diff,
        image_editing_request, tiny,
    )
}  # fmt: skip
