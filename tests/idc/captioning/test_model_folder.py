import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from idc.captioning import model_folder
from idc.captioning.decoding import generate
from idc.captioning.tokenizer import TokenizerError
from shards.packing.tokenizer import train_tokenizer

WORDS = ["one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"]
BACKBONE = {"backbone": "efficientnet_lite0", "grid": [2, 3], "dim": 10}


@pytest.fixture
def folder(tmp_path, make_model):
    tokenizer = train_tokenizer(WORDS, tmp_path, "words")["file"]
    model = make_model()
    return model_folder.save(
        tmp_path / "run" / "model", model.config, model.state_dict(), tmp_path / tokenizer, BACKBONE,
        model_folder.Decoding(beam=2, length_penalty=0.5), {"step": 7},
    )  # fmt: skip


def test_the_model_says_the_same_after_a_round_trip(folder, make_model, make_batch):
    batch = make_batch()
    images = {"before": batch["before"], "after": batch["after"]}
    expected = generate(make_model(), images, beam=2)
    for path in (folder, folder.parent):  # the model folder, and the run folder around it
        loaded = model_folder.load(path)
        found = generate(loaded.model, images, beam=2)
        assert torch.equal(found.alternatives, expected.alternatives)
        assert torch.equal(found.log_probability, expected.log_probability)
    assert loaded.tokenizer.size == 23
    assert loaded.backbone == BACKBONE and loaded.about == {"step": 7}
    assert loaded.decoding == model_folder.Decoding(2, 0.5)
    assert not loaded.model.training and not any(weight.requires_grad for weight in loaded.model.parameters())


def test_an_older_export_is_replaced_and_nothing_is_pickled(folder, make_model, tmp_path):
    (folder / "stale.txt").write_text("from before")
    model = make_model()
    model_folder.save(folder, model.config, model.state_dict(), tmp_path / "tokenizer.json", BACKBONE)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not folder.with_name("model.partial").exists()
    assert json.loads((folder / "config.json").read_text())["format"] == model_folder.FORMATS["paper"]
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()


def test_what_earlier_formats_of_the_published_network_say_is_said_still(folder, make_batch, caplog):
    batch = make_batch()
    images = {"before": batch["before"], "after": batch["after"]}
    expected = generate(model_folder.load(folder).model, images, beam=2)
    path = folder / "config.json"
    good = json.loads(path.read_text())
    later = ("novelties", "pooled", "attributes")  # fields that came after format 1
    model = {name: value for name, value in good["model"].items() if name not in later} | {"tie_word_head": False}
    for version in (1, 2):
        path.write_text(json.dumps(good | {"format": version, "model": model}))
        found = generate(model_folder.load(folder).model, images, beam=2)
        assert torch.equal(found.alternatives, expected.alternatives)
        assert torch.equal(found.log_probability, expected.log_probability)
        assert f"has format {version}; read as 3, with the same captions" in caplog.text
    path.write_text(json.dumps(good | {"format": 1, "model": model | {"tie_word_head": True}}))
    with pytest.raises(model_folder.ExportError, match="no field 'tie_word_head'"):
        model_folder.load(folder)


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(model_folder.ExportError, match="nowhere: no such folder"):
        model_folder.load(tmp_path / "nowhere")
    with pytest.raises(model_folder.ExportError, match="exported no model yet"):
        model_folder.load(tmp_path)
    config, weights = folder / "config.json", folder / "model.safetensors"
    good = json.loads(config.read_text())
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"model": good["model"] | {"architecture": "idc"}}, "format 3 and this version reads 4 of architecture 'idc'"),
        ({"model": good["model"] | {"depth": 3}}, "no field 'depth'"),
        ({"decoding": {"width": 3}}, "config.json"),
        ({"model": good["model"] | {"d_model": 32}}, "model.safetensors does not fit config.json"),
    ):
        config.write_text(json.dumps(good | change))
        with pytest.raises(model_folder.ExportError, match=message):
            model_folder.load(folder)
    config.write_text("{")
    with pytest.raises(model_folder.ExportError, match="config.json"):
        model_folder.load(folder)
    config.write_text(json.dumps(good))
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(model_folder.ExportError, match="model.safetensors cannot be read"):
        model_folder.load(folder)
    save_file({"weight": torch.zeros(1)}, weights)
    with pytest.raises(model_folder.ExportError, match="model.safetensors does not fit"):
        model_folder.load(folder)
    weights.write_bytes(whole)
    words = json.loads((folder / "tokenizer.json").read_text())
    words["words"][6:8] = words["words"][7:5:-1]
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(model_folder.ExportError, match="tokenizer.json is not the tokenizer"):
        model_folder.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="tokenizer.json"):
        model_folder.load(folder)
