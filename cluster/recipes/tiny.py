"""The recipe for tests."""

from __future__ import annotations

from cluster.config import fields
from cluster.recipes.blocks import OPEN
from idc.model.config import SIZES, ModelConfig


def tiny() -> fields.Config:
    """Every part of the main job within seconds, on a handful of scenes: for tests. It learns nothing."""
    return fields.Config(
        name="tiny",
        data=fields.DataConfig(
            shards="data/tiny", read_threads=1,
            blocks=fields.BlocksConfig(scenes=(24, 8, 8), size=(64, 48), supersample=1, class_photos=2),
        ),
        backbone=fields.BackboneConfig(size=(48, 64)),
        model=ModelConfig(
            **OPEN, **SIZES["tiny"], dropout=0.1,
            attention_dropout=0.0, max_length=24,
        ),
        pretraining={"pretrain": fields.StageConfig(
            steps=10, global_batch_size=8, micro_batch_size=4, contrastive_group=2, log_every=1, warmup_steps=2,
            ratios={"mlm": 2, "mvcl": 1, "fda": 1, "classify": 2, "photo_mlm": 1, "photo_mvcl": 1, "photo_fda": 1},
            negatives=fields.NegativesConfig(count=2), checkpoint_every=5,
        )},
        finetune=fields.FinetuneConfig(
            steps=10, global_batch_size=8, micro_batch_size=4, contrastive_group=2, log_every=1, warmup_steps=2,
            ratios={"finetune": 2, "classify": 1}, weights={"fda": 0.5}, negatives=fields.NegativesConfig(count=2),
            references=2, validate_every=5, validate_limit=4, checkpoint_every=5,
        ),
        evaluate=fields.EvaluateConfig(beam=2, limit=8),
        cluster=fields.ClusterConfig(timeout_s=120),
    )  # fmt: skip
