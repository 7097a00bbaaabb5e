"""Recipes: functions that return a complete configuration. `cluster/train.py NAME` runs the one of that name."""

from __future__ import annotations

from collections.abc import Callable

from cluster.config.fields import Config
from cluster.recipes.blocks import blocks, blocks_full, blocks_paper
from cluster.recipes.edits import edits
from cluster.recipes.gpus import on_gpus
from cluster.recipes.pairs import pairs
from cluster.recipes.published import birds_to_words, clevr_change, image_editing_request, levir_cc, spot_the_diff
from cluster.recipes.published_idc import (
    birds_to_words_idc,
    clevr_change_idc,
    image_editing_request_idc,
    levir_cc_idc,
    spot_the_diff_idc,
)
from cluster.recipes.tiny import tiny

PUBLISHED_IDC = (
    clevr_change_idc, birds_to_words_idc, spot_the_diff_idc, image_editing_request_idc, levir_cc_idc,
)  # fmt: skip
# Those whose sizes go by the number of their pairs (`cluster.recipes.sizes`).
BY_PAIRS: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe for recipe in (pairs, edits, *PUBLISHED_IDC, *map(on_gpus, (pairs, *PUBLISHED_IDC)))
}
RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        blocks, *BY_PAIRS.values(), blocks_paper, blocks_full, clevr_change, birds_to_words, spot_the_diff,
        image_editing_request, levir_cc, tiny,
    )
}  # fmt: skip
