"""Recipes of ours for GPUs: the same data and stages, a larger network, a vision transformer that is trained with it.

Nothing of them has been measured. What a CPU recipe chooses by the number of pairs, they choose alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from cluster.config.fields import AugmentConfig, Config, StageConfig
from idc.model.config import SIZES

S = TypeVar("S", bound=StageConfig)
VIT = "vit_base_patch16_siglip_224.v2_webli"  # its sizes are multiples of 16, as those of all these recipes are


def on_gpus(recipe: Callable[[], Config]) -> Callable[[], Config]:
    """The recipe NAME_gpu of a recipe NAME."""

    def made() -> Config:
        config = recipe()
        stages = {name: _gentler(stage) for name, stage in config.pretraining.items()}
        return dataclasses.replace(
            config,
            name=made.__name__,
            # Images pass through the backbone in every step, so they need not be the same each time.
            data=dataclasses.replace(config.data, augment=AugmentConfig(light=0.1, crop=0.05)),
            backbone=dataclasses.replace(config.backbone, name=VIT, mode="live", train="all"),
            model=dataclasses.replace(config.model, **SIZES["base"]),
            pretraining=stages,
            finetune=_gentler(config.finetune),
        )

    made.__name__ = f"{recipe.__name__}_gpu"
    made.__doc__ = f"As {recipe.__name__}, larger, and trained with a vision transformer on live images; for GPUs."
    return made


def _gentler(stage: S) -> S:
    """Half the learning rate: that of two cores is for a network a quarter as wide."""
    return dataclasses.replace(stage, lr=stage.lr / 2)
