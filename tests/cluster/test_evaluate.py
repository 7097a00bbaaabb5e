import dataclasses

import pytest
import torch

from cluster.evaluate import merge, predict, read_predictions, write_predictions
from cluster.samples import Samples
from idc import tokenizer as tokenizers
from idc.model import build
from shards.errors import DataError
from shards.reader import Folder


@pytest.fixture(scope="module")
def samples(tiny) -> Samples:
    return Samples(Folder.open(tiny.shards), Folder.open(tiny.features), "pair", "test")


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tokenizers.load(tiny.shards / Folder.open(tiny.shards).manifest["tokenizer"]["file"])


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    model = build(dataclasses.replace(tiny.config.model))
    with torch.no_grad():  # far from its start, so that different pairs get different sentences
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 2 * weight.shape[-1] ** -0.5)
    return model


def test_each_sample_once_for_any_number_of_ranks(model, samples, tokenizer):
    alone = merge([predict(model, samples, tokenizer, batch_size=5)])
    assert [prediction["key"] for prediction in alone] == samples.records.keys
    certainties = sorted(prediction["log_probability"] for prediction in alone)
    assert certainties[-1] - certainties[0] > 0.02, "pairs that the model cannot tell apart would prove nothing"
    for world in (2, 3, len(samples) + 1):
        parts = [predict(model, samples, tokenizer, rank=rank, world=world, batch_size=2) for rank in range(world)]
        together = merge(parts)
        assert [p["caption"] for p in together] == [p["caption"] for p in alone]
        for one, other in zip(together, alone, strict=True):
            assert one["log_probability"] == pytest.approx(other["log_probability"], abs=1e-3)
            assert one["changed_probability"] == pytest.approx(other["changed_probability"], abs=1e-3)


def test_predictions_carry_what_scoring_needs(model, samples, tokenizer):
    prediction = predict(model, samples, tokenizer, limit=3, beam=2)[1]
    record = samples.record(1)
    assert prediction["references"] == record["captions"]
    assert prediction["truth"] == record["truth"] and prediction["changed"] == record["changed"]
    assert prediction["log_probability"] < 0 and 0 <= prediction["changed_probability"] <= 1
    assert len(predict(model, samples, tokenizer, limit=3, rank=1, world=2)) == 1


def test_file_comes_back_and_damage_is_named(tmp_path, model, samples, tokenizer):
    predictions = predict(model, samples, tokenizer, limit=4)
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, predictions)
    assert read_predictions(path) == predictions
    path.write_text(path.read_text() + '{"key": "cut')
    with pytest.raises(DataError, match=r"predictions.jsonl: line 5"):
        read_predictions(path)
    with pytest.raises(DataError, match="nothing.jsonl"):
        read_predictions(tmp_path / "nothing.jsonl")
