"""Recipes for the embedded data set: `blocks`, the main job; as published; at the size of the paper."""

from __future__ import annotations

import dataclasses
from typing import TypedDict, TypeVar

from cluster.config.fields import (
    BackboneConfig,
    BlocksConfig,
    ClusterConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    FinetuneConfig,
    NegativesConfig,
    StageConfig,
)
from idc.model.config import SIZES, ModelConfig

S = TypeVar("S", bound=StageConfig)


class Open(TypedDict):
    """What the data decide (fields.DERIVED): filled in when they are opened; until then it only has to be possible."""

    vocab_size: int
    classes: int
    fine_channels: int


OPEN: Open = {"vocab_size": 6, "classes": 1, "fine_channels": 1}


def blocks() -> Config:
    """The main job: rendered scenes, frozen features, our architecture; minutes on two cores."""
    return Config(
        name="blocks",
        # Cameras of training vary more than those of the test: the real data set's do.
        data=DataConfig(shards="data/blocks", blocks=BlocksConfig(scenes=(3000, 150, 250), camera=2.0)),
        # Every pixel of the pictures: the backbone's cells are 8 and 16 pixels wide, small blocks 14.
        backbone=BackboneConfig(size=(224, 336)),
        model=ModelConfig(
            **OPEN, **SIZES["small"], architecture="idc", novelties=6,
            dropout=0.0, attention_dropout=0.0, max_length=32, layer_norm="standard", final_norm=True,
        ),
        # What a region shows comes first: words about it cannot be learnt before (docs/experiments.md, E6).
        pretraining={
            "regions": StageConfig(
                steps=420, global_batch_size=96, micro_batch_size=16, ratios={"class_labels": 3, "photo_labels": 4},
                weights={"labels": 0.3}, lr=2e-3, warmup_steps=40, checkpoint_every=420, log_every=4,
            ),
            "pretrain": StageConfig(
                steps=150, global_batch_size=64, micro_batch_size=32,
                ratios={"mlm": 2, "mvcl": 1, "fda": 1, "classify": 1, "photo_mlm": 1},
                negatives=NegativesConfig(kinds=("matched",), count=1), mvcl_temperature=0.1, fda_temperature=0.1,
                contrastive_group=16, lr=1e-3, warmup_steps=40, checkpoint_every=150, log_every=2,
            ),
        },
        finetune=FinetuneConfig(
            steps=1080, global_batch_size=32, micro_batch_size=32, ratios={"finetune": 6, "photo_labels": 1},
            weights={"changed": 0.5, "labels": 0.1}, negatives=NegativesConfig(kinds=("matched",), count=1),
            fda_temperature=0.1, references=3, lr=1e-3, warmup_steps=40, validate_every=120, checkpoint_every=360,
            # Scores of 300 pairs differ by more from step to step than the last steps, of small ones, improve.
            select="last",
        ),
        evaluate=EvaluateConfig(beam=3),
        cluster=ClusterConfig(precision="bf16"),
    )  # fmt: skip


def blocks_paper() -> Config:
    """The published architecture, losses, ratios and schedules (AAAI 2022, CLEVR-Change), on the embedded data.

    Its 250,000 steps are meant for GPUs.
    """
    return Config(
        name="blocks_paper",
        data=DataConfig(shards="data/blocks-20000", blocks=BlocksConfig(scenes=(20_000, 1000, 2000))),
        backbone=BackboneConfig(size=(224, 224)),
        model=ModelConfig(**OPEN, caption_loss="masked"),
        pretraining={"pretrain": StageConfig(
            steps=250_000, global_batch_size=200, micro_batch_size=100, batch_sizes={"fda": 28},
            ratios={"mlm": 8, "mvcl": 1, "fda": 2}, negatives=NegativesConfig(count=6), contrastive_group=0,
            lr=1e-4, schedule="noam", warmup_steps=8000, checkpoint_every=5000,
            mvcl_temperature=1.0, fda_temperature=1.0, weight_decay=0.0, clip=0.0, log_every=50,
        )},
        finetune=FinetuneConfig(
            steps=40_000, global_batch_size=200, micro_batch_size=100, ratios={"finetune": 1}, per_word=True,
            lr=3e-5, schedule="halving", halve_at=(10_000, 20_000), warmup_steps=0,
            validate_every=2000, checkpoint_every=2000, weight_decay=0.0, clip=0.0, log_every=50,
        ),
        evaluate=EvaluateConfig(beam=1),
    )  # fmt: skip


def blocks_full() -> Config:
    """The main job at the paper's size: 79,606 pairs of 480x320 pixels (67,660, 3,976, 7,970), a larger network.

    For GPUs. Losses and the order of the stages are those of `blocks`, 24 times as many samples; its schedule has not
    been measured.
    """
    small = blocks()

    def longer(stage: S) -> S:
        return dataclasses.replace(
            stage, steps=6 * stage.steps, warmup_steps=6 * stage.warmup_steps, lr=stage.lr / 2,
            global_batch_size=4 * stage.global_batch_size, micro_batch_size=4 * stage.micro_batch_size,
            batch_sizes={task: 4 * size for task, size in stage.batch_sizes.items()},
            checkpoint_every=6 * stage.checkpoint_every,
        )  # fmt: skip

    return dataclasses.replace(
        small,
        name="blocks_full",
        # A train scene gives four pairs, or three where the inverse change would be ambiguous: in this seed 67,660.
        data=DataConfig(
            shards="data/blocks-full",
            blocks=BlocksConfig(seed=6, scenes=(17_018, 1988, 3985), size=(480, 320), supersample=2),
        ),
        model=dataclasses.replace(small.model, **SIZES["base"]),
        pretraining={name: longer(stage) for name, stage in small.pretraining.items()},
        finetune=dataclasses.replace(longer(small.finetune), validate_every=6 * small.finetune.validate_every),
    )
