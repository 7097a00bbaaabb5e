"""Weights pass from stage to stage; what does not fit is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from testing.checkpoints import commit, save_weights

from cluster.config.options import override, to_yaml
from cluster.errors import ConfigError
from cluster.recipes.registry import RECIPES
from cluster.training.weights import load_first_weights, source_of_stage
from idc.model.build import build
from idc.model.config import ModelConfig

SIZES = ModelConfig(
    vocab_size=20, feature_dim=8, grid=(2, 2), d_model=16, heads=2, d_ff=16, cross_modal_blocks=1, classes=4,
    max_length=8,
)  # fmt: skip


def model(**changes: object) -> torch.nn.Module:
    return build(dataclasses.replace(SIZES, **changes))


def test_a_later_stage_starts_from_the_weights_alone(tmp_path: Path) -> None:
    source, target = model(), model()
    save_weights(source.state_dict(), tmp_path / "w.safetensors")
    load_first_weights(target, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_classification_heads_of_another_data_set_stay_random(tmp_path: Path) -> None:
    source = model(classes=7)
    save_weights(source.state_dict(), tmp_path / "w.safetensors")
    for target in (model(), model(classes=0)):
        load_first_weights(target, tmp_path / "w.safetensors")
        assert torch.equal(target.word_head.weight, source.word_head.weight)


def test_parts_of_the_weights_can_be_taken_alone(tmp_path: Path) -> None:
    source, target = model(), model()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    save_weights(source.state_dict(), tmp_path / "w.safetensors")
    load_first_weights(target, tmp_path / "w.safetensors", ("embedding", "pair_image"))
    for name, tensor in target.state_dict().items():
        taken = name.split(".")[0] in ("embedding", "pair_image")
        assert torch.equal(tensor, (source.state_dict() if taken else before)[name])
    with pytest.raises(ConfigError, match="start_parts 'nose' is no part of this model"):
        load_first_weights(target, tmp_path / "w.safetensors", ("nose",))


@pytest.mark.parametrize(
    ("changes", "said"), [({"vocab_size": 21}, "embedding.words"), ({"cross_modal_blocks": 2}, "has no")]
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, changes: dict, said: str) -> None:
    save_weights(model().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"^[^\n]*w.safetensors[^\n]*$") as caught:
        load_first_weights(model(**changes), tmp_path / "w.safetensors")
    assert said in str(caught.value)


def test_where_first_weights_come_from(tmp_path: Path) -> None:
    run, tiny = tmp_path / "runs" / "tiny", RECIPES["tiny"]()
    assert source_of_stage(run, tiny, "pretrain", tmp_path) is None
    with pytest.raises(ConfigError, match="has 0 of the 10 steps of pretrain"):
        source_of_stage(run, tiny, "finetune", tmp_path)
    without = override(tiny, [("pretrain.steps", "0")])
    assert source_of_stage(run, without, "finetune", tmp_path) is None
    unfinished = commit(run / "checkpoints" / "pretrain", 5)
    with pytest.raises(ConfigError, match="has 5 of the 10 steps"):
        source_of_stage(run, tiny, "finetune", tmp_path)
    finished = commit(run / "checkpoints" / "pretrain", 10)
    assert source_of_stage(run, tiny, "finetune", tmp_path) == finished / "weights.safetensors"
    assert unfinished.is_dir()
    (run / "config.yaml").write_text(to_yaml(tiny))
    other = override(without, [("finetune.start_from", "runs/tiny")])
    assert source_of_stage(tmp_path / "runs" / "x", other, "finetune", tmp_path) == finished / "weights.safetensors"
    nowhere = override(tiny, [("pretrain.start_from", "no/such.safetensors")])
    with pytest.raises(ConfigError, match="--pretrain.start_from"):
        source_of_stage(run, nowhere, "pretrain", tmp_path)


def test_stages_follow_one_another_and_those_of_no_steps_are_passed_over(tmp_path: Path) -> None:
    tiny = RECIPES["tiny"]()
    stage = tiny.pretraining["pretrain"]
    config = dataclasses.replace(tiny, pretraining={"photos": stage, "idle": stage, "pairs": stage})
    config = override(config, [("idle.steps", "0")])
    run = tmp_path / "runs" / "tiny"
    with pytest.raises(ConfigError, match="has 0 of the 10 steps of photos.* --photos.steps 0 to train pairs"):
        source_of_stage(run, config, "pairs", tmp_path)
    photos = commit(run / "checkpoints" / "photos", 10)
    assert source_of_stage(run, config, "pairs", tmp_path) == photos / "weights.safetensors"
    with pytest.raises(ConfigError, match="has 0 of the 10 steps of pairs"):
        source_of_stage(run, config, "finetune", tmp_path)
    pairs = commit(run / "checkpoints" / "pairs", 10)
    assert source_of_stage(run, config, "finetune", tmp_path) == pairs / "weights.safetensors"
