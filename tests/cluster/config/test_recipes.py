"""Every recipe for a data set, on a small copy of it in the layout it is published in: three steps of each stage.

All stages to the report, without Ray. What is cut is sizes alone.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from testing import native_layouts
from testing.multirank import fit
from testing.suite.no_java import hide_java

from cluster import pipeline
from cluster.config.fields import task_batch_size
from cluster.config.options import to_yaml
from cluster.config.tasks import compares_samples
from cluster.recipes.commandline import parse
from cluster.recipes.registry import RECIPES
from cluster.tracking.run_log import read_metrics
from idc.metrics.coco import METRICS
from shards.pack import main as pack

LAYOUTS = {  # recipe -> what is packed for it
    "clevr_change": ("clevr_change",),
    "birds_to_words": ("birds_to_words", "cub", "nabirds"),
    "spot_the_diff": ("spot_the_diff",),
    "image_editing_request": ("image_editing_request",),
    "pairs": ("pairs",),
    "blocks": (),
    "blocks_full": (),
}
STEPS = 3
SMALL = {
    "log.wandb": "disabled", "data.pack_workers": "1", "backbone.name": "efficientnet_lite0",
    "backbone.strides": "", "backbone.size": "48,64", "model.d_model": "32",
    "model.heads": "2", "model.d_ff": "64", "model.cross_modal_blocks": "1", "evaluate.limit": "4",
    "evaluate.beam": "1", "evaluate.tokenizer": "split", "finetune.validate_every": str(STEPS),
    "finetune.validate_limit": "2", "cluster.workers": "1", "cluster.timeout_s": "120",
    "cluster.gpus_per_worker": "0",
}  # fmt: skip
BLOCKS = {"data.blocks.scenes": "8,2,2", "data.blocks.size": "64,48", "data.blocks.supersample": "1",
          "data.blocks.class_photos": "1"}  # fmt: skip


@pytest.mark.ranks
@pytest.mark.parametrize("name", LAYOUTS)
def test_three_steps_of_every_stage_and_the_evaluation(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_java(monkeypatch)
    for layout in LAYOUTS[name]:
        getattr(native_layouts, layout)(tmp_path / "native" / layout)
        command = [layout, "--root", str(tmp_path / "native" / layout), "--out", str(tmp_path / "data" / layout)]
        assert pack([*command, "--workers", "1"]) == 0
    recipe = RECIPES[name]()
    options = dict(SMALL) if LAYOUTS[name] else SMALL | BLOCKS
    for stage in recipe.stages:
        options |= {f"{stage}.{option}": value for option, value in (
            ("steps", str(STEPS)), ("global_batch_size", "4"), ("micro_batch_size", "4"), ("batch_sizes", ""),
            ("warmup_steps", "1"), ("log_every", "1"), ("checkpoint_every", str(STEPS)),
        )}  # fmt: skip
        if any(map(compares_samples, recipe.stage(stage).ratios)):
            options[f"{stage}.contrastive_group"] = "2"
    arguments = [word for option, value in options.items() for word in (f"--{option}", value)]
    pipeline.run(parse([name, "--root", str(tmp_path), *arguments]), fit)

    run = tmp_path / "runs" / recipe.name
    steps = [record for record in read_metrics(run) if "task" in record]
    assert [(record["stage"], record["step"]) for record in steps] == [
        (stage, step) for stage in recipe.stages for step in range(1, STEPS + 1)
    ]
    for record in steps:
        assert record["task"] in recipe.stage(record["stage"]).ratios
        assert any(loss > 0 for loss in record["loss"].values()) and record["grad_norm"] > 0
    aligned = {record["stage"] for record in steps if "alignment" in record}
    assert aligned == {"pretrain"} if name in ("blocks", "blocks_full") else aligned <= set(recipe.pretraining)
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    scores = json.loads((run / "scores.json").read_text())
    assert len(predictions) == scores["n"]["total"] == 4 and set(scores["total"]) >= set(METRICS)
    (validated,) = (record["validation"] for record in read_metrics(run) if "validation" in record)
    select = recipe.finetune.select
    assert select == "last" or validated[select] is not None, "what the checkpoint is chosen by"
    assert ("FDA picks the true caption" in (run / "report.html").read_text()) == bool(aligned)
    assert (run / "model" / "model.safetensors").is_file()


PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^python cluster/train\.py ?(.*(?:\\\n.*)*)$", PAGE, re.M))
def test_the_commands_of_the_page_are_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "blocks").mkdir(parents=True)  # a run whose configuration is a recipe
    (tmp_path / "runs" / "blocks" / "config.yaml").write_text(to_yaml(RECIPES["blocks"]()))
    parse(shlex.split(line, comments=True))


def test_the_page_names_every_recipe() -> None:
    (table,) = re.findall(r"^\| recipe \|.*\n((?:\|.*\n)+)", PAGE, re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()))) == sorted(RECIPES)


def stage(recipe: str, name: str):
    return RECIPES[recipe]().stage(name)


@pytest.mark.parametrize(
    ("recipe", "name", "numbers"),
    [
        ("clevr_change", "pretrain", ({"mlm": 8, "mvcl": 1, "fda": 2}, 250_000, 200, 8000)),
        ("birds_to_words", "cub", ({"photo_mlm": 9, "photo_mvcl": 1, "photo_fda": 2}, 60_000, 350, 4000)),
        ("birds_to_words", "birds", ({"mlm": 9, "mvcl": 1, "fda": 2, "classify": 3}, 60_000, 150, 4000)),
    ],
)
def test_the_published_settings(recipe: str, name: str, numbers: tuple) -> None:
    found = stage(recipe, name)
    assert (found.ratios, found.steps, found.global_batch_size, found.warmup_steps) == numbers
    assert (found.lr, found.schedule, found.negatives.count) == (1e-4, "noam", 6)
    fda = next(task for task in found.ratios if task.endswith("fda"))
    assert task_batch_size(found, fda) == numbers[2] // 7


@pytest.mark.parametrize(
    ("recipe", "blocks", "length", "batch", "select"),
    [("clevr_change", 3, 40, 200, "CIDEr"), ("birds_to_words", 2, 80, 32, "ROUGE_L")],
)
def test_the_published_sizes(recipe: str, blocks: int, length: int, batch: int, select: str) -> None:
    config = RECIPES[recipe]()
    model, finetune = config.model, config.finetune
    assert (model.cross_modal_blocks, model.max_length) == (blocks, length)
    assert (model.d_model, model.heads, model.d_ff, model.dropout) == (512, 8, 2048, 0.2)
    assert (finetune.global_batch_size, finetune.select, finetune.lr) == (batch, select, 3e-5)
    assert finetune.halve_at == (10_000, 20_000)


@pytest.mark.parametrize("recipe", ["clevr_change", "birds_to_words", "spot_the_diff", "image_editing_request"])
def test_losses_weigh_as_the_reference_has_them(recipe: str) -> None:
    """Contrast over the whole batch; in fine-tuning sums over the batch, so the changed head weighs what it did."""
    config = RECIPES[recipe]()
    assert all(config.stage(name).contrastive_group == 0 for name in config.pretraining)
    assert config.finetune.per_word
