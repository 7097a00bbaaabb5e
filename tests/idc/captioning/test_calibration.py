"""How unlike training pairs a pair is, and how sure "changed" is."""

import json

import pytest
import torch

from idc.captioning import model_folder
from idc.captioning.calibration import Calibration, Moments, calibrated, fit_temperature

DRAWN = torch.Generator().manual_seed(0)


def drawn(number, shift=0.0):
    return (
        torch.randn(number, 3, generator=DRAWN) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([2.0, -7.0, 0.0]) + shift
    )


def certain(number, temperature):
    """P(changed) of a head whose log-odds are `temperature` times too large, and what happened."""
    logits = 2 * torch.randn(number, generator=DRAWN)
    return (temperature * logits).sigmoid(), torch.rand(number, generator=DRAWN) < logits.sigmoid()


@pytest.fixture(scope="module")
def calibration():
    train = Moments()
    for _ in range(20):  # in parts
        train.add(drawn(100))
    changed, labels = certain(2000, 3.0)
    return calibrated(train, drawn(2000), changed, [None, *labels[1:].tolist()])


def test_one_in_a_hundred_is_unfamiliar_and_what_is_elsewhere_more_so(calibration):
    assert calibration.mean == pytest.approx((2.0, -7.0, 0.0), abs=0.2)
    assert calibration.deviation == pytest.approx((1.0, 5.0, 0.1), rel=0.05)
    assert 0.005 < (calibration.unfamiliarity(drawn(4000)) > 1).float().mean() < 0.02
    assert (calibration.unfamiliarity(drawn(100, shift=5.0)) > 1).float().mean() > 0.95


def test_the_temperature_undoes_overconfidence(calibration):
    assert calibration.temperature == pytest.approx(3.0, rel=0.15) and calibration.pairs["labelled"] == 1999
    changed, labels = certain(4000, 3.0)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (calibration.probability(changed) >= low) & (calibration.probability(changed) < low + 0.2)
        assert labels[inside].float().mean() == pytest.approx(low + 0.1, abs=0.06)
    assert not torch.allclose(calibration.probability(changed), changed, atol=0.1)


def test_a_split_without_errors_does_not_make_it_certain_and_few_pairs_make_no_temperature():
    labels = torch.arange(200) % 2 == 0
    changed = torch.where(labels, 0.9, 0.1)
    found = fit_temperature(changed, labels)
    assert torch.sigmoid(torch.tensor(0.9).logit() / found) == pytest.approx(101 / 102, abs=1e-3)
    assert fit_temperature(changed[:30], labels[:30]) is None
    assert fit_temperature(changed, torch.ones(200, dtype=torch.bool)) is None
    train = Moments()
    train.add(drawn(20))
    unmarked = calibrated(train, drawn(20), changed[:20], [None] * 20)
    assert unmarked.temperature is None and unmarked.pairs["labelled"] == 0


def test_it_comes_back_from_its_file_and_a_damaged_one_is_named(calibration, tmp_path):
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    for content in ("{}", "no json", json.dumps(calibration.to_dict() | {"limit": 0})):
        (tmp_path / "calibration.json").write_text(content)
        with pytest.raises(model_folder.ExportError, match="calibration.json is not the calibration"):
            model_folder._calibration(tmp_path / "calibration.json")


@pytest.mark.parametrize("architecture", ["paper", "idc"])
def test_a_profile_of_a_pair_does_not_depend_on_its_batch(make_model, make_batch, architecture):
    fields = {} if architecture == "paper" else {"regions": 2, "novelties": 2, "pooled": 1, "cell_size": 8}
    model, batch = make_model(architecture=architecture, **fields), make_batch(samples=3)
    images = {side: batch[side] for side in ("before", "after")}

    @torch.no_grad()
    def profile(some):
        return model.profile(some, model.encode_pair(model.embed_images(some)))

    together = profile(images)
    alone = torch.cat([profile({side: each[i : i + 1] for side, each in images.items()}) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert together.shape == (3, 3 if architecture == "idc" else 20) and (together.std(0) > 0).all()
