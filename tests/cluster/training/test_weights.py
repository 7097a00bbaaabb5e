"""Weights pass from stage to stage; what does not fit is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from testing.models.checkpoints import commit, save_weights

from cluster.config.options import override, to_dict, to_yaml
from cluster.errors import ConfigError
from cluster.recipes.commandline import read_config
from cluster.recipes.registry import RECIPES
from cluster.training.weights import load_first_weights, source_of_stage, start_from_model
from idc.captioning import model_folder, tokenizer
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


def words(path: Path, *known: str) -> tokenizer.Tokenizer:
    path.write_text(json.dumps({"kind": "words", "words": [*tokenizer.SPECIAL, *known]}))
    return tokenizer.load(path)


BACKBONE = {"backbone": "a", "weights_sha256": "b", "channels": [8], "strides": [8], "size": [32, 32]}


def test_a_trained_model_of_other_words_and_classes_passes_on_what_both_have(tmp_path: Path) -> None:
    sizes = dataclasses.replace(
        SIZES, architecture="idc", grid=(4, 4), regions=2, novelties=1, pooled=4, cell_size=8, classes=2
    )
    theirs, ours = (
        words(tmp_path / "a.json", "dog", "red", "cat"),
        words(tmp_path / "b.json", "cat", "bird", "dog", "x"),
    )
    source = build(dataclasses.replace(sizes, vocab_size=theirs.size))
    target = build(dataclasses.replace(sizes, vocab_size=ours.size, classes=3))
    source.name_classes(torch.tensor([[8], [6]]))  # cat, dog
    target.name_classes(torch.tensor([[8], [7], [6]]))  # dog, bird, cat
    with torch.no_grad():
        for tensor in source.parameters():
            tensor.uniform_(1, 2)
    model_folder.save(tmp_path / "model", source.config, source.state_dict(), theirs.path, BACKBONE)
    was = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    start_from_model(target, tmp_path / "model" / model_folder.WEIGHTS, ours, BACKBONE | {"size": [64, 64]})
    now, given = target.state_dict(), source.state_dict()
    for name in ("embedding.words.weight", "word_head.weight", "word_head.bias"):
        assert torch.equal(now[name][[0, 5, 6, 8]], given[name][[0, 5, 8, 6]])  # specials, cat, dog
        assert torch.equal(now[name][[7, 9]], was[name][[7, 9]])  # bird, x
    head = "finder.class_head.weight"
    assert torch.equal(now[head][[0, 2, 3]], given[head][[1, 0, 2]]) and torch.equal(now[head][1], was[head][1])
    table = "pointer.table"
    assert torch.equal(now[table][[0, 2]][:, [6, 8]], given[table][[1, 0]][:, [8, 6]])
    assert torch.equal(now[table][1], was[table][1])
    assert torch.equal(now["class_words"], was["class_words"])
    assert all(torch.equal(now[name], given[name]) for name in now if now[name].shape == given[name].shape
               and name != "class_words")  # fmt: skip
    with pytest.raises(ConfigError, match=r"model was trained on features of weights_sha256 b and these have c"):
        start_from_model(target, tmp_path / "model" / model_folder.WEIGHTS, ours, BACKBONE | {"weights_sha256": "c"})
    wider = build(dataclasses.replace(sizes, vocab_size=ours.size, d_model=32))
    with pytest.raises(ConfigError, match="model.safetensors: embedding.words.weight is"):
        start_from_model(wider, tmp_path / "model" / model_folder.WEIGHTS, ours, BACKBONE)


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
    other = override(without, [("init", "runs/tiny")])
    assert source_of_stage(tmp_path / "runs" / "x", other, "finetune", tmp_path) == finished / "weights.safetensors"
    nowhere = override(tiny, [("init", "no/such.safetensors")])
    with pytest.raises(ConfigError, match="--init"):
        source_of_stage(run, nowhere, "pretrain", tmp_path)


def test_a_run_of_a_version_in_which_each_stage_had_a_start_is_read(tmp_path: Path) -> None:
    path, tiny = tmp_path / "config.yaml", RECIPES["tiny"]()
    for starts, init in (({}, ""), ({"pretrain": "runs/a", "finetune": "runs/b"}, "runs/a")):
        values = to_dict(tiny)
        del values["init"]
        for name, stage in [*values["pretraining"].items(), ("finetune", values["finetune"])]:
            stage["start_from"] = starts.get(name, "")
        path.write_text(yaml.safe_dump(values))
        assert read_config(path) == dataclasses.replace(tiny, init=init)


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
