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
    labels = {"pair_labels": 1.0}
    return dataclasses.replace(
        base,
        name="pairs",
        data=DataConfig(shards="data/pairs", source="none", words=200),
        backbone=BackboneConfig(size=(224, 224)),
        model=dataclasses.replace(base.model, dropout=0.1, max_length=40),
        pretraining={
            "regions": dataclasses.replace(stages["regions"], ratios=labels),
            "pretrain": dataclasses.replace(stages["pretrain"], ratios={"mlm": 2, "mvcl": 1, "fda": 1}),
        },
        finetune=dataclasses.replace(
            base.finetune, steps=720, ratios={"finetune": 6} | labels, references=1, select="CIDEr"
        ),
    )
