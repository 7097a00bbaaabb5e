"""A model calibrated on its own pairs, and what scores.json says of it."""

import pytest
import torch

from cluster.batches.samples import Samples
from cluster.evaluation.calibrating import calibrate, reliability
from cluster.evaluation.predict import predict
from idc.captioning import tokenizer as tokenizers
from idc.model.build import build
from shards.errors import DataError
from shards.reading.reader import Folder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_predictions_of_a_calibrated_model(tiny, monkeypatch):
    torch.manual_seed(0)
    model = build(tiny.config.model).eval()
    place = (tiny.shards, tiny.features)
    calibration = calibrate(model, [place, place], "cpu")
    shards = Folder.open(tiny.shards)
    count = shards.manifest["splits"]["val"]["pair"]
    assert calibration.pairs["val"] == calibration.pairs["labelled"] == count and calibration.pairs["train"] > count
    assert calibration == calibrate(model, [place, place], "cpu")
    samples = Samples(tiny.shards, tiny.features, "pair", "val")
    tokenizer = tokenizers.load(tiny.shards / shards.manifest["tokenizer"]["file"])
    made = predict(model, samples, tokenizer, calibration=calibration)
    far = [one["unfamiliarity"] for one in made]
    assert 0 < sum(each > 0.999 for each in far) <= max(1, 0.02 * count), "1 in 100 is beyond the limit"
    scores = reliability(made)
    assert scores["n"] == scores["n_unfamiliar"] == count == sum(one["n"] for one in scores["bins"])
    plain = predict(model, samples, tokenizer)
    assert "unfamiliarity" not in plain[0] and reliability(plain)["unfamiliar"] is None
    assert [one["caption"] for one in plain] == [one["caption"] for one in made]

    whole = Samples.arrays
    monkeypatch.setattr(Samples, "arrays", lambda self, places: _damaged(self, places, whole))
    without = calibrate(model, [place], "cpu")
    assert without.pairs["val"] == count - 1, "one that cannot be read is left out"


def _damaged(samples, places, whole):
    if samples.split == "val" and 0 in places:
        raise DataError("damaged")
    return whole(samples, places)


def test_reliability_by_hand():
    rows = ((0.95, True, 0.1), (0.97, True, 2.0), (0.91, False, 0.3), (0.0, False, 1.0), (1.0, None, 0.2))
    pairs = [{"changed_probability": p, "changed": c, "references": [], "unfamiliarity": far} for p, c, far in rows]
    found = reliability(pairs)
    assert found["n"] == 4 and found["n_unfamiliar"] == 5 and found["unfamiliar"] == pytest.approx(20.0)
    assert found["ece"] == pytest.approx((3 * abs((0.95 + 0.97 + 0.91) / 3 - 2 / 3) + 0) / 4)
    assert found["bins"][-1] == {
        "from": 0.9, "to": 1.0, "n": 3, "probability": pytest.approx(2.83 / 3), "changed": pytest.approx(2 / 3)
    }  # fmt: skip
    assert found["bins"][5]["probability"] is None and "reasons" not in found
    unknown = reliability([{"changed_probability": 0.5, "references": []}])
    assert unknown["ece"] is None and set(unknown["reasons"]) == {"ece", "unfamiliar"}
