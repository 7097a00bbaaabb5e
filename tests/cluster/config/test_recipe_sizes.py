"""Recipes for data sets of any size: what goes by the number of pairs, and what a backbone gives them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from testing import native_layouts
from testing.models.checkpoints import commit

from cluster import pipeline
from cluster.batches.batches import Batches
from cluster.config.fields import Config, task_batch_size, task_micro_batches
from cluster.config.options import override, to_yaml
from cluster.config.tasks import TASKS
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.planning.mock_batch import mock_batch
from cluster.prepare import backbone_sizes, prepare_training, with_sizes
from cluster.recipes.commandline import parse
from cluster.recipes.registry import BY_PAIRS, RECIPES
from cluster.recipes.sizes import MEASURED, scaled, with_sizes_of
from cluster.seeds import run_seeds
from cluster.training.weights import open_tokenizer
from idc.backbone.timm_import import import_timm
from idc.losses.objectives import ObjectiveOptions
from idc.losses.training_model import TrainingModel
from idc.model.build import build
from shards.pack import pack
from shards.sources import make_source
from tune import commandline as sweeping

PAPER = ("clevr_change", "birds_to_words", "spot_the_diff", "image_editing_request", "levir_cc")
OURS = tuple(f"{name}_idc" for name in PAPER)


def samples(config: Config, stage: str = "finetune") -> int:
    return config.stage(stage).steps * config.stage(stage).global_batch_size


def test_a_schedule_goes_by_the_number_of_pairs() -> None:
    recipe = RECIPES["pairs"]()
    assert scaled(recipe, MEASURED) == recipe
    numbers = (1, 100, 499, 500, 1000, 3347, 6815, 19_999, 20_000, 67_660, 10**6, 10**9)
    sized = [scaled(recipe, number) for number in numbers]
    for stage in recipe.stages:
        seen = [samples(config, stage) for config in sized]
        assert all(a <= 1.03 * b for a, b in zip(seen, seen[1:], strict=False)), (stage, seen)  # steps are whole
        assert 0.33 * samples(recipe, stage) <= seen[0] and seen[-1] <= 10.1 * samples(recipe, stage)
        batch = recipe.stage(stage).global_batch_size
        assert {config.stage(stage).global_batch_size for config in sized} == {batch // 2, batch, 2 * batch}
    passes = [samples(config) / number for config, number in zip(sized, numbers, strict=True)]
    assert all(b <= 1.03 * a for a, b in zip(passes, passes[1:], strict=False)), (
        "the more pairs, the less often each is seen"
    )
    for config in sized:
        validate(config, config.stages)
        finetune = config.finetune
        assert finetune.steps == 6 * finetune.validate_every, "the last step is validated"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training pairs at data/pairs."""
    root = tmp_path_factory.mktemp("sizes")
    native_layouts.pairs(root / "native")
    pack(make_source("pairs", root / "native"), root / "data" / "pairs")
    return root


def sized(root: Path, *words: str) -> Config:
    command = parse(["pairs", *words])
    return with_sizes_of(command.config, command.recipe, command.given, root)


def test_what_was_chosen_is_said_and_what_was_set_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = sized(root)
    assert config == scaled(RECIPES["pairs"](), 12)
    said = capsys.readouterr().err
    steps = [config.stage(name).steps for name in ("regions", "pretrain", "finetune")]
    assert said == (
        f"pairs: 12 training pairs, so regions {steps[0]} steps of 48, pretrain {steps[1]} steps of 32, "
        f"finetune {steps[2]} steps of 12\n"
    )
    set_by_user = "--finetune.steps 7 --regions.global_batch_size 80 --pretrain.contrastive_group 32"
    own = sized(root, *set_by_user.split())
    assert (own.finetune.steps, own.finetune.global_batch_size) == (7, 12)
    assert own.stage("regions").global_batch_size == 80 and own.stage("regions").steps == steps[0]
    assert own.stage("pretrain").global_batch_size == 64, "a smaller one might be no multiple of the group"
    assert sized(root, "--data.shards", "data/none") == parse(["pairs", "--data.shards", "data/none"]).config


@pytest.mark.parametrize(("name", "option"), [("gone", "--seed"), ("gone-seeds/seed_0", "--seeds")])
def test_a_run_whose_data_are_gone_is_the_one_that_was_trained(root: Path, name: str, option: str) -> None:
    """No other configuration than that of its folder; what is missing there is all that is said."""
    run = root / "runs" / name
    run.mkdir(parents=True)
    config = scaled(RECIPES["pairs"](), 12)
    data = dataclasses.replace(config.data, shards="data/none")
    (run / "config.yaml").write_text(to_yaml(dataclasses.replace(config, name=name, data=data)))
    commit(run / "checkpoints" / "finetune", 100)
    words = ["pairs", "--root", str(root), "--name", "gone", "--data.shards", "data/none", "--stage", "evaluate"]
    command = parse([*words, option, "0,1" if option == "--seeds" else "0"])
    with pytest.raises(ConfigError, match="has no trained model to evaluate"):
        (run_seeds if command.seeds else pipeline.run)(command)


def test_a_sweep_goes_by_the_pairs_too(root: Path) -> None:
    plan = sweeping.parse(["pairs", "--root", str(root)]).plan
    assert plan.config.finetune.steps == scaled(RECIPES["pairs"](), 12).finetune.steps


def test_recipes_with_settings_of_their_own_keep_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(set(RECIPES) - set(BY_PAIRS)):
        config = override(RECIPES[name](), [("data.shards", "data/pairs")])
        assert with_sizes_of(config, name, (), root) == config
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_read_its_features(name: str) -> None:
    """ResNet-101, 7 x 7 cells of 2048 channels: known without its weights."""
    config = RECIPES[name]()
    validate(config, config.stages)
    assert backbone_sizes(config) == {"grid": (7, 7), "feature_dim": 2048, "fine_channels": 0}
    assert config.model.architecture == "paper" and config.data.shards == f"data/{name}"


@pytest.mark.parametrize("name", OURS)
def test_each_published_set_has_a_recipe_of_ours(name: str) -> None:
    config, paper = RECIPES[name](), RECIPES[name.removesuffix("_idc")]()
    validate(config, config.stages)
    assert (config.name, config.model.architecture, config.data.shards) == (name, "idc", paper.data.shards)
    assert config.data.words and name in BY_PAIRS and config.model.max_length >= paper.model.max_length
    labelled = "changed" not in paper.finetune.weights
    assert bool(config.finetune.weights["changed"]) == labelled, "a head for what nobody has labelled"
    assert backbone_sizes(config)["fine_channels"] == 40


@pytest.mark.parametrize("name", ("pairs", *OURS))
def test_each_of_them_has_one_for_gpus_that_trains_a_transformer_with_it(name: str) -> None:
    ours, config = RECIPES[name](), parse([f"{name}_gpu", "--finetune.log_every", "5"]).config
    backbone, model = config.backbone, config.model
    assert (config.name, backbone.mode, backbone.train) == (f"{name}_gpu", "live", "all") and f"{name}_gpu" in BY_PAIRS
    assert model.d_model == 512 and (config.data.shards, model.max_length) == (ours.data.shards, ours.model.max_length)
    assert {n: config.stage(n).ratios for n in config.stages} == {n: ours.stage(n).ratios for n in ours.stages}
    rows, columns = ours.backbone.size
    assert backbone_sizes(config) == {"grid": (rows // 16, columns // 16), "feature_dim": 768, "fine_channels": 0}


@pytest.mark.parametrize("gpus", [1, 8])
def test_the_recipe_for_80000_pairs_divides_over_one_gpu_and_over_eight(gpus: int) -> None:
    config = parse(["blocks_full", "--cluster.workers", str(gpus), "--cluster.gpus_per_worker", "1"]).config
    for stage in map(config.stage, config.stages):
        for task in stage.ratios:
            number, size = task_micro_batches(stage, task, gpus)
            assert number * size * gpus == task_batch_size(stage, task), "no GPU waits for another's rows"


@pytest.mark.parametrize("name", ["birds_to_words_idc", "levir_cc"])
def test_every_task_gives_a_gradient(name: str) -> None:
    """The network of the recipe, made small, on batches of the greatest length."""
    config = RECIPES[name]()
    small = {"grid": (3, 4), "d_model": 16, "heads": 2, "d_ff": 32, "vocab_size": 50, "feature_dim": 48}
    small |= {"cell_size": 16, "classes": 5, "attributes": True, "fine_channels": 8} if name in OURS else {}
    network = build(dataclasses.replace(config.model, **small))
    trained = TrainingModel(network)
    for stage in map(config.stage, config.stages):
        cut = dataclasses.replace(stage, global_batch_size=16, micro_batch_size=16, batch_sizes={})
        for task in cut.ratios:
            trained.zero_grad()
            batch = mock_batch(task, cut, network.config, network.visual_tokens, 1)
            options = ObjectiveOptions(contrastive_group=cut.contrastive_group)
            losses = trained(TASKS[task].objective, batch, options)
            torch.stack([loss.sum for loss in losses.values()]).sum().backward()
            norms = [parameter.grad.norm() for parameter in trained.parameters() if parameter.grad is not None]
            assert 0 < float(torch.stack(norms).sum()) < float("inf"), task


def test_a_vision_transformer_trains_the_recipe_for_pairs(root: Path) -> None:
    """Its patches, and their means over 2 x 2 as a second level."""
    file, name = root / "vit.safetensors", "vit_tiny_patch16_224"
    save_file(import_timm().create_model(name, num_classes=0).state_dict(), file)
    words = f"pairs --backbone.name {name} --backbone.weights {file} --backbone.size 64,80 --data.pack_workers 1"
    config = parse(f"{words} --backbone.strides 16,32 --cluster.gpus_per_worker 0 --data.words 20".split()).config
    training = prepare_training(config, root)
    assert training.data.features.path.name == f"pairs-{name}-64x80-16-32"
    config = with_sizes(config, training)
    assert (config.model.grid, config.model.feature_dim, config.model.fine_channels) == ((2, 3), 5 * 192, 192)
    trained, place = TrainingModel(build(config.model)), training.data.place
    stage = dataclasses.replace(config.finetune, global_batch_size=8)
    made = Batches(place.shards, place.features, open_tokenizer(place.shards, None), config.model, 20, stage, 5, 0, 1)
    for step in range(3):
        batch = made.step(step)
        losses = trained(batch.model_task, batch.micro_batches[0])
        torch.stack([loss.sum for loss in losses.values()]).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in trained.parameters() if p.grad is not None)
