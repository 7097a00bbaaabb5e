"""Options that are misspelt, impossible, without effect, or would fail late: one line, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from testing.refusal import refused

from cluster.config.options import override
from cluster.prepare import check_backbone
from cluster.recipes.commandline import parse
from cluster.recipes.registry import RECIPES
from cluster.train import main


@pytest.mark.parametrize(
    ("command", "said"),
    [
        # Misspelt, or of the wrong type.
        ("tiny --pretrain.stepz 3", "did you mean --pretrain.steps?"),
        ("tiny --steps 3", "--pretrain.steps or --finetune.steps"),
        ("tiny --pretrain.ratios.mlmm 3", "did you mean --pretrain.ratios.mlm?"),
        ("tiny --pretrain.ratios mlm:3", "--pretrain.ratios"),
        ("tiny --pretrain.steps 3.5", "not of the type int"),
        ("tiny --pretrain.lr nan", "not of the type float"),
        ("tiny --pretrain.lr fast", "not of the type float"),
        ("tiny --model.mask_padding yes", "not of the type bool"),
        ("tiny --backbone.size 128", "not of the type int,int"),
        ("tiny --cluster.precision bf17", "did you mean bf16?"),
        ("tiny --cluster.zero_stage 4", "--cluster.zero_stage"),
        ("tiny --pretrain.negatives.kinds retrieve,repalce", "did you mean replace?"),
        ("tiny --model.vocab_size 99", "read from the data"),
        ("tiny --model.d_model 33", "--model.d_model 33"),
        # Impossible together.
        ("tiny --pretrain.global_batch_size 9", "--pretrain.global_batch_size 9 must be a multiple of"),
        ("tiny --pretrain.batch_sizes.mvcl 3", "--pretrain.batch_sizes.mvcl 3"),
        ("tiny --pretrain.batch_sizes.fda 0", "--pretrain.batch_sizes.fda 0"),
        ("tiny --pretrain.micro_batch_size 1", "must fit into one micro-batch"),
        ("tiny --pretrain.ratios mlm=0", "draws no task"),
        ("tiny --pretrain.ratios.finetune 1", "belongs to --finetune.ratios"),
        ("tiny --finetune.ratios classify=1", "no task finetune"),
        ("tiny --pretrain.schedule noam --pretrain.warmup_steps 0", "noam needs"),
        ("tiny --pretrain.halve_at 10", "is for --pretrain.schedule halving"),
        ("tiny --pretrain.mvcl_temperature 0", "--pretrain.mvcl_temperature must be more than 0"),
        ("tiny --pretrain.weights.mlm -1", "--pretrain.weights.mlm"),
        ("tiny --pretrain.weights.mlm 0", "teaches nothing"),
        ("tiny --pretrain.negatives.kinds=", "--pretrain.negatives.kinds is empty"),
        ("tiny --model.caption_loss masked", "--finetune.references"),
        ("tiny --name ../x", "--name"),
        # No command.
        ("blok", "did you mean blocks?"),
        ("--stage evalute", "did you mean evaluate?"),
        ("tiny --pretrain.steps", "needs a value"),
        ("tiny blocks", "only one recipe"),
        ("-x", "options begin with --"),
        ("no/such/config.yaml", "cannot be read"),
        ("tiny --stage pretrain --pretrain.steps 0", "nothing to do"),
        ("pairs --evaluate.split holdout", "--evaluate.split holdout: scenes are held out of the embedded"),
        ("tiny --evaluate.split holdout --evaluate.shards data/x", "leave out --evaluate.shards"),
        # Without effect.
        ("blocks --model.projection linear", "--model.projection is 'linear'; architecture 'idc' has no use for it"),
        ("blocks --model.tie_feature_head false", "tie_feature_head is False; architecture 'idc' has no use for it"),
        ("tiny --model.regions 6", "--model.regions 6 has no effect: --model.architecture is paper"),
        ("tiny --model.cell_size 64", "--model.architecture is paper"),
        ("tiny --data.source none --data.blocks.seed 3", "--data.blocks.seed 3 has no effect: --data.source none"),
        ("clevr_change --data.tokenizer sentencepiece", "--data.tokenizer sentencepiece has no effect"),
        ("clevr_change --data.words 50", "--data.words 50 has no effect: only --model.architecture idc"),
        ("clevr_change --data.classes data/birds", "no stage draws classify or class_labels"),
        ("tiny --evaluate.beam 1 --evaluate.length_penalty 1", "--evaluate.length_penalty 1.0 has no effect"),
        ("tiny --log.wandb disabled --log.project mine", "--log.project mine has no effect"),
        ("tiny --log.profile_steps 5", "it begins after 20 steps, and no stage has more"),
        ("tiny --pretrain.start_parts projection", "no stage comes before"),
        ("tiny --pretrain.weights.caption 2", "--pretrain.weights.caption 2.0 has no effect: no task of the stage"),
        ("tiny --pretrain.batch_sizes.class_labels 4", "the stage does not draw this task"),
        ("tiny --finetune.weights.fda 0 --finetune.fda_temperature 2", "(--finetune.weights.fda is 0)"),
        ("clevr_change --finetune.negatives.count 2", "--finetune.negatives.count 2 has no effect"),
        ("clevr_change --finetune.negatives.kinds retrieve", "the stage has no fda loss"),
        ("clevr_change --finetune.mvcl_temperature 2", "the stage has no mvcl loss"),
        ("clevr_change --finetune.contrastive_group 4", "the stage draws none of classify, mvcl, photo_mvcl"),
        ("clevr_change --pretrain.same_class_share 1", "the stage does not draw classify"),
        ("blocks --regions.label_smoothing 0.1", "the stage has no loss over words"),
        ("tiny --finetune.validate_every 0 --finetune.validate_limit 9", "--finetune.validate_every is 0"),
        ("tiny --finetune.validate_every 0 --finetune.select ROUGE_L", "no scores to choose by"),
        ("pairs --data.edits.seed 3", "--data.edits.seed 3 has no effect: --data.source none packs nothing"),
        ("blocks --pretraining edits", "--pretraining edits is for the recipes pairs, clevr_change_idc"),
        ("pairs --pretraining blocks", "--pretraining 'blocks' is not a choice (known: edits)"),
        ("pairs --pretraining edits --init runs/x", "--init and --pretraining edits: give one of the two"),
        ("pairs --pretraining edits --data.edits.photos x", "the photos are those of the pairs"),
        ("pairs --regions.start_from runs/x", "unknown option --regions.start_from"),
        # What would fail late.
        ("blocks --model.d_model 66 --model.heads 2", "--model.d_model 66 must be a multiple of 4"),
        ("tiny --model.max_length 2", "--model.max_length is 2; it must be at least 3"),
        ("tiny --pretrain.ratios.photo_labels 1", "--pretrain.ratios.photo_labels needs --model.architecture idc"),
        ("tiny --pretrain.ratios pair_labels=1", "--pretrain.ratios.pair_labels needs --model.architecture idc"),
        ("tiny --data.features_on gpu --cluster.gpus_per_worker 0", "--data.features_on gpu needs workers with GPUs"),
        ("tiny --data.blocks.scenes 0,1,1", "--data.blocks.scenes 0,1,1 has none to train on"),
        ("tiny --data.blocks.scenes 5,0,1", "--finetune.validate_every needs --data.blocks.scenes"),
        ("tiny --data.blocks.class_photos 0", "--pretrain.ratios.classify needs --data.blocks.class_photos"),
    ],
)
def test_what_cannot_be_meant_has_no_effect_or_would_fail_late_is_refused(command: str, said: str) -> None:
    with refused(said):
        parse(command.split())


@pytest.mark.parametrize(
    "command",
    [
        *RECIPES,
        "blocks --data.source none",  # the recipe's blocks options are not the user's
        "blocks_full --model.architecture paper --regions.steps 0 --finetune.ratios finetune=1",
        "tiny --evaluate.beam 1",
        "tiny --finetune.weights.fda 0",
        "tiny --pretrain.ratios.mvcl 0 --pretrain.ratios.photo_mvcl 0 --pretrain.weights.mvcl 0",
        "tiny --finetune.lr_floor 0 --model.projection sigmoid",
        "tiny --finetune.start_parts projection",
        "tiny --stage pretrain --evaluate.beam 5 --finetune.lr 0.1",  # one set of options for a chain of jobs
        "clevr_change --data.photos data/cub --data.tokenizer sentencepiece",
        "pairs --pretraining edits --data.edits.pairs 400,40,0",
        "blocks --init runs/x --regions.start_parts finder",
    ],
)
def test_what_has_an_effect_or_is_the_recipes_own_is_let_through(command: str) -> None:
    parse(command.split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model.regions": "200"},
            "--model: regions and novelties are 200 and 6; a grid of 3 x 4 cells has at most 48 of both",
        ),
        ({"backbone.name": "vit_tiny_patch16_224", "model.regions": "4"}, "vit_tiny_patch16_224"),
        ({"backbone.name": "efficientnet_lite9"}, "efficientnet_lite9"),
        ({"backbone.weights": "no/such.safetensors"}, "no/such.safetensors"),
    ],
)
def test_a_backbone_that_cannot_be_used_is_refused_before_data_are_made(
    changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    config = override(RECIPES["blocks"](), [("backbone.size", "48,64"), *changes.items()])
    with refused(said, ValueError):
        check_backbone(config, tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--init runs/nobody", "--init"),
        ("--finetune.start_parts finder", "--finetune.start_parts 'finder' is no part of this model"),
        ("--stage finetune", "has 0 of the 10 steps of pretrain: run --stage pretrain"),
        ("--data.mix no/such=1", "--data.mix"),
        ("--data.photos no/such", "--data.photos"),
        ("--evaluate.shards no/such", "--evaluate.shards"),
        ("--backbone.name efficientnet_lite9", "efficientnet_lite9"),
    ],
)
def test_the_command_ends_before_it_makes_anything(tmp_path: Path, options: str, said: str) -> None:
    with refused(said, ValueError):
        main(["tiny", "--root", str(tmp_path), *options.split()])
    assert not (tmp_path / "data").exists() and not (tmp_path / "runs" / "tiny").exists()
