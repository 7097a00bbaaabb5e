"""Recipes for published data sets, the network as published. The paper (AAAI 2022) has numbers for two of them.

Its settings are kept where it has any: ratios of the tasks, steps, batches, warm-up, learning rates, blocks, lengths,
the metric that chooses the checkpoint, FDA on a seventh of the batch, contrast over the whole batch, losses of
fine-tuning as sums over the batch. They train alike on any number of workers. The features are the paper's: the last
level of ResNet-101, 7 x 7 cells of 2048 channels. Images keep their aspect.
"""

from __future__ import annotations

import dataclasses

from cluster.config import fields
from idc.model.config import ModelConfig

NEGATIVES = 6
RESNET101 = fields.BackboneConfig(name="resnet101.tv_in1k", size=(224, 224), strides=(32,))


def _pretraining(batch: int, steps: int, warmup: int, ratios: dict) -> fields.StageConfig:
    fda = "photo_fda" if "photo_fda" in ratios else "fda"
    return fields.StageConfig(
        steps=steps, global_batch_size=batch, micro_batch_size=batch, batch_sizes={fda: batch // (1 + NEGATIVES)},
        ratios=ratios, negatives=fields.NegativesConfig(count=NEGATIVES), mvcl_temperature=1.0, fda_temperature=1.0,
        contrastive_group=0, lr=1e-4, schedule="noam", warmup_steps=warmup, weight_decay=0.0, clip=0.0,
        checkpoint_every=5000, log_every=50,
    )  # fmt: skip


def _finetuning(batch: int, steps: int, validate_every: int, **changes) -> fields.FinetuneConfig:
    return fields.FinetuneConfig(
        steps=steps, global_batch_size=batch, micro_batch_size=batch, ratios={"finetune": 1}, per_word=True, lr=3e-5,
        schedule="halving", halve_at=(10_000, 20_000), warmup_steps=0, weight_decay=0.0, clip=0.0,
        validate_every=validate_every, checkpoint_every=5000, log_every=50, **changes,
    )  # fmt: skip


def _recipe(name: str, blocks: int, max_length: int, **parts) -> fields.Config:
    data = parts.pop("data", fields.DataConfig(shards=f"data/{name}"))
    return fields.Config(
        name=name,
        data=dataclasses.replace(data, source="none", tokenizer="words"),
        backbone=RESNET101,
        # The vocabulary is read from the data; until then its size only has to be possible.
        model=ModelConfig(vocab_size=6, cross_modal_blocks=blocks, max_length=max_length, caption_loss="masked"),
        # Greedy, and scored on the words as they stand, as the published numbers are.
        evaluate=fields.EvaluateConfig(beam=1, tokenizer="split"),
        **parts,
    )


def clevr_change() -> fields.Config:
    """CLEVR-Change with the paper's settings: 250,000 steps of MLM 8 : MVCL 1 : FDA 2, then fine-tuning.

    The reference fine-tunes for at most 100,000 steps and stops when 20,000 have brought nothing; the learning rate has
    its last value from step 20,000 on.
    """
    return _recipe(
        "clevr_change", blocks=3, max_length=40,
        pretraining={"pretrain": _pretraining(200, 250_000, 8000, {"mlm": 8, "mvcl": 1, "fda": 2})},
        finetune=_finetuning(200, 40_000, 2000, select="CIDEr"),
    )  # fmt: skip


def birds_to_words() -> fields.Config:
    """Birds-to-Words with the paper's settings and both data expansions: CUB captions, then NABirds classes.

    Stage cub: captioned photos, MLM 9 : MVCL 1 : FDA 2. Stage birds: pairs, and pairs of class-labelled photos 3. One
    vocabulary for the captions of both. Left out: the reference's L2 term of 1e-4 in fine-tuning.
    """
    return _recipe(
        "birds_to_words", blocks=2, max_length=80,
        data=fields.DataConfig(shards="data/birds_to_words", photos="data/cub", classes="data/nabirds"),
        pretraining={
            "cub": _pretraining(350, 60_000, 4000, {"photo_mlm": 9, "photo_mvcl": 1, "photo_fda": 2}),
            "birds": _pretraining(150, 60_000, 4000, {"mlm": 9, "mvcl": 1, "fda": 2, "classify": 3}),
        },
        # Nobody has labelled which birds do not differ.
        finetune=_finetuning(32, 20_000, 250, select="ROUGE_L", weights={"changed": 0}),
    )  # fmt: skip


def spot_the_diff() -> fields.Config:
    """Spot-the-Diff, for which the paper has no settings: those of its second stage for birds, without classes.

    40 words are enough for the protocol "single" (a sentence); for "multi" give --model.max_length 80.
    """
    return _pairs_alone("spot_the_diff", max_length=40)


def image_editing_request() -> fields.Config:
    """Image-Editing-Request, for which the paper has no settings: those of its second stage for birds, without classes.

    A third of the pairs of Spot-the-Diff, so a third of the steps of pre-training.
    """
    config = _pairs_alone("image_editing_request", max_length=40)
    stage = dataclasses.replace(config.pretraining["pretrain"], steps=20_000)
    return dataclasses.replace(config, pretraining={"pretrain": stage})


def levir_cc() -> fields.Config:
    """LEVIR-CC, for which the paper has no settings: those of its second stage for birds, without classes."""
    return _pairs_alone("levir_cc", max_length=48, labelled=True)


def _pairs_alone(name: str, max_length: int, labelled: bool = False) -> fields.Config:
    """labelled: it is known which pairs have not changed."""
    return _recipe(
        name, blocks=2, max_length=max_length,
        pretraining={"pretrain": _pretraining(150, 60_000, 4000, {"mlm": 9, "mvcl": 1, "fda": 2})},
        finetune=_finetuning(32, 20_000, 250, select="CIDEr", weights={} if labelled else {"changed": 0}),
    )  # fmt: skip
