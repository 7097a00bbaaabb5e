import dataclasses
import threading
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cluster.evaluation.predict
from cluster.batches.samples import Samples
from cluster.evaluation.predict import merge, predict, read_predictions, write_predictions
from idc.captioning import tokenizer as tokenizers
from idc.captioning.decoding import generate
from idc.captioning.precision import bf16
from idc.model.build import build
from shards.errors import DataError
from shards.reading.reader import Folder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def samples(tiny) -> Samples:
    return Samples(tiny.shards, tiny.features, "pair", "test")


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


def test_the_next_chunk_is_read_while_one_is_captioned(model, samples, tokenizer, monkeypatch):
    expected, read, captioned = predict(model, samples, tokenizer, batch_size=3), [], []
    second = threading.Event()
    arrays = samples.arrays

    def slow_generate(*arguments):
        if not captioned:
            assert second.wait(30), "the second chunk waits for the first"
        captioned.append(len(read))
        return generate(*arguments)

    def watched_arrays(places):
        read.append(list(places))
        if len(read) == 2:
            second.set()
        return arrays(places)

    monkeypatch.setattr(cluster.evaluation.predict, "generate", slow_generate)
    monkeypatch.setattr(samples, "arrays", watched_arrays)
    assert predict(model, samples, tokenizer, batch_size=3) == expected
    assert sum(read, []) == list(range(len(samples)))
    assert max(ahead - done for done, ahead in enumerate(captioned)) == 2, "one chunk ahead, and no more"


def test_what_goes_wrong_in_reading_is_raised(model, samples, tokenizer, monkeypatch):
    arrays, made = samples.arrays, []

    def broken_arrays(places):
        if 4 in places:
            raise DataError("sample 4 is damaged")
        return arrays(places)

    monkeypatch.setattr(samples, "arrays", broken_arrays)
    monkeypatch.setattr(
        cluster.evaluation.predict, "generate", lambda *arguments: made.append(1) or generate(*arguments)
    )
    with pytest.raises(DataError, match="sample 4 is damaged"):
        predict(model, samples, tokenizer, batch_size=2)
    assert len(made) == 2
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_features_of_half_precision(model, samples, tokenizer, monkeypatch):
    arrays, dtypes = samples.arrays, set()

    def cast(dtype, places):
        made = {role: features.half().to(dtype) for role, features in arrays(places).items()}
        dtypes.update(features.dtype for features in made.values())
        return made

    found = []
    for dtype in (torch.float32, torch.float16):
        monkeypatch.setattr(samples, "arrays", lambda places, dtype=dtype: cast(dtype, places))
        found.append(predict(model, samples, tokenizer, limit=5, maps=True))
    assert found[0] == found[1] and dtypes == {torch.float32, torch.float16}


def test_on_a_cpu_captions_are_fp32(model, samples, tokenizer):
    assert predict(model, samples, tokenizer, limit=5, precision="bf16") == predict(model, samples, tokenizer, limit=5)


class Rounded(TorchDispatchMode):
    """Counts how often each of the tensors is given another dtype."""

    def __init__(self, tensors):
        super().__init__()
        self._names = {tensor.data_ptr(): name for name, tensor in tensors}
        self.times = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].data_ptr() in self._names:
            self.times[self._names[args[0].data_ptr()]] += 1
        return function(*args, **(kwargs or {}))


def test_bf16_rounds_each_weight_once(model, samples):
    frozen = build(model.config).eval().requires_grad_(False)
    frozen.load_state_dict(model.state_dict())
    next(frozen.parameters()).requires_grad_(True)
    images = samples.arrays(range(3))
    with Rounded(frozen.named_parameters()) as rounded, bf16(frozen, torch.device("cpu")):
        found = generate(frozen, images, beam=2)
    assert rounded.times["word_head.weight"] == 1 and set(rounded.times.values()) == {1}
    assert [weight.requires_grad for weight in frozen.parameters()].count(True) == 1
    torch.testing.assert_close(found.changed, generate(frozen, images, beam=2).changed, rtol=0.1, atol=0.1)
    assert found.alternative_log_probability.dtype == torch.float32


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
