"""The recipe for your own pairs."""

from __future__ import annotations

import dataclasses

from cluster.config.fields import BackboneConfig, Config, DataConfig
from cluster.recipes.blocks import blocks


def pairs() -> Config:
    """Your own pairs of images with captions, and nothing else: our architecture, minutes on two cores.

    What there is to see is told by the captions' own words, for nobody has labelled it. More pairs deserve more steps.
    """
    base = blocks()
    stages = base.pretraining
    return dataclasses.replace(
        base,
        name="pairs",
        data=DataConfig(shards="data/pairs", source="none", words=200),
        backbone=BackboneConfig(size=(224, 224)),
        # Things that stay are not named, so that nothing teaches to find them: what is new is found without.
        model=dataclasses.replace(base.model, regions=0, novelties=16, dropout=0.1, max_length=40),
        pretraining={
            "regions": dataclasses.replace(
                stages["regions"], steps=120, ratios={"pair_labels": 1}, micro_batch_size=48, checkpoint_every=120
            ),
            "pretrain": dataclasses.replace(
                stages["pretrain"], steps=40, ratios={"mlm": 2, "mvcl": 1, "fda": 1}, warmup_steps=20,
                checkpoint_every=40,
            ),
        },
        finetune=dataclasses.replace(
            base.finetune, steps=360, global_batch_size=24, ratios={"finetune": 1}, lr=1.2e-3,
            weights={"changed": 0.5, "labels": 0.3}, validate_every=60, select="CIDEr",
        ),
    )  # fmt: skip
