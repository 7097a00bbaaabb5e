"""Sizes, layers, configuration."""

from __future__ import annotations

import json
import math

import pytest
import torch

from idc.losses import objectives
from idc.model.build import build
from idc.model.config import ConfigError, ModelConfig
from idc.model.layers import Attention, UnbiasedLayerNorm, sinusoid
from idc.model.trunk import ImageTokens


def test_the_published_size():
    model = build(ModelConfig(vocab_size=80))
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(17.2, abs=0.05)
    assert model.visual_tokens == 49


def test_layer_norm_is_unbiased_with_eps_beside_the_deviation():
    norm, x = UnbiasedLayerNorm(4, eps=0.5), torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    deviation = math.sqrt((4 + 1 + 0 + 9) / 3)
    torch.testing.assert_close(norm(x), (x - 3.0) / (deviation + 0.5))
    assert norm.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert bool(norm(torch.zeros(1, 4, dtype=torch.bfloat16)).isfinite().all())


def test_sinusoid_by_hand():
    table = sinusoid(5, 8)
    for position, column in ((3, 0), (3, 2), (4, 5), (1, 7)):
        wave = math.sin if column % 2 == 0 else math.cos
        assert float(table[position, column]) == pytest.approx(wave(position / 10000 ** (2 * column / 8)), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_may_look_nowhere_gets_no_nan(dtype):
    torch.manual_seed(0)
    attention = Attention(ModelConfig(vocab_size=9, d_model=8, heads=2)).to(dtype).eval()
    x = torch.randn(2, 5, 8, dtype=dtype, requires_grad=True)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[0, :, 3] = False
    mixed = attention(x, mask)
    mixed.float().square().sum().backward()
    assert bool(mixed.isfinite().all()) and bool(x.grad.isfinite().all())
    assert torch.equal(mixed[0, 3], attention.output.bias)


def test_tokens_that_stand_for_nothing_are_not_seen(make_model, make_batch):
    model, batch = make_model(), make_batch(samples=2)
    whole = model.embed_images(batch)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[:, 4:] = False
    masked = ImageTokens(whole.before, whole.after, valid, valid)
    cut = ImageTokens(whole.before[:, :4], whole.after[:, :4])
    for fuse in (model.cross_modal, model.cross_modal_causal):
        pair, pair_cut = model.encode_pair(masked), model.encode_pair(cut)
        torch.testing.assert_close(pair.single_cls, pair_cut.single_cls)
        fused, fused_cut = fuse(pair, batch["caption"]), fuse(pair_cut, batch["caption"])
        torch.testing.assert_close(fused.text, fused_cut.text)
        visual = pair.visual(fused.images).reshape(2, 2, 6, -1)[:, :, :4].flatten(1, 2)
        torch.testing.assert_close(visual, pair_cut.visual(fused_cut.images))
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    pair = model.encode_pair(ImageTokens(whole.before, whole.after, nothing, nothing))
    assert bool(model.cross_modal(pair, batch["caption"]).text.isfinite().all())


def test_decoding_with_tokens_that_stand_for_nothing(make_model, make_batch, monkeypatch):
    model, batch = make_model(), make_batch(samples=2)
    whole, valid = model.embed_images(batch), torch.tensor([[True] * 4 + [False] * 2] * 2)
    images = ImageTokens(whole.before, whole.after, valid, valid)
    monkeypatch.setattr(model, "embed_images", lambda batch: images)
    with torch.no_grad():
        expected = model.word_head(model.cross_modal_causal(model.encode_pair(images), batch["caption"][:, :3]).text)
        state, _ = model.start_captions({}, 9, beam=2)
        for position in range(3):
            found = model.next_word(state, batch["caption"][:, position, None].expand(-1, 2))
            torch.testing.assert_close(found, expected[:, position, None].expand(-1, 2, -1))


def test_of_a_photo_the_second_cls_skips_the_single_image_block(make_model, make_batch):
    model, batch = make_model(), make_batch(photo=True)
    photo, cls = model.embed_images(batch).before, [model.embedding.cls(kind, 4) for kind in (1, 3)]
    expected = model.pair_image(torch.cat([model.single_image(torch.cat([cls[0], photo], dim=1)), cls[1]], dim=1))
    pair = model.encode_pair(model.embed_images(batch))
    torch.testing.assert_close(pair.tokens, expected)
    torch.testing.assert_close(pair.visual(pair.tokens), expected[:, 1:7])
    torch.testing.assert_close(pair.both_cls(pair.tokens)[1], expected[:, 7])


def test_both_images_are_told_apart(make_model, make_batch):
    model, batch = make_model(), make_batch()
    swapped = batch | {"before": batch["after"], "after": batch["before"]}
    one, other = (model.encode_pair(model.embed_images(which)) for which in (batch, swapped))
    assert not torch.allclose(one.tokens[:, 1:7], other.tokens[:, 8:14])


@pytest.mark.parametrize(
    "fields",
    [
        {"tie_feature_head": False},
        {"final_norm": True},
        {"layer_norm": "standard"},
        {"projection": "linear"},
    ],
)
def test_variations_change_the_network_and_train(make_model, make_batch, fields):
    batch = make_batch()
    plain = make_model()
    varied = make_model(**fields)
    own = {} if fields.get("tie_feature_head", True) else {"regression.weight"}
    same = {name: weight for name, weight in plain.state_dict().items() if name in varied.state_dict().keys() - own}
    varied.load_state_dict(same, strict=False)
    tasks = ("mlm", "mvcl")
    assert any(
        objectives.losses(varied, task, batch)[task].sum.item()
        != objectives.losses(plain, task, batch)[task].sum.item()
        for task in tasks
    )
    for task in tasks:
        objectives.losses(varied, task, batch)[task].mean.backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in varied.parameters() if weight.grad is not None)


def test_tied_weights_are_one_parameter(make_model):
    names = dict(make_model().named_parameters())
    assert "regression.weight" not in names  # it is the projection
    untied = make_model(tie_feature_head=False)
    assert dict(untied.named_parameters())["regression.weight"] is not untied.projection.weight


def test_dropout_acts_in_training_alone(make_model, make_batch):
    model, batch = make_model(), make_batch()
    assert torch.equal(
        objectives.losses(model, "mlm", batch)["mlm"].sum, objectives.losses(model, "mlm", batch)["mlm"].sum
    )
    model.train()
    assert not torch.equal(
        objectives.losses(model, "mlm", batch)["mlm"].sum, objectives.losses(model, "mlm", batch)["mlm"].sum
    )


def test_configuration_round_trip():
    config = ModelConfig(vocab_size=30, grid=(5, 8), classes=3, caption_loss="masked", projection="linear")
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="'heds'"):
        ModelConfig.from_dict({"vocab_size": 30, "heds": 2})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vocab_size": 5}, "vocab_size"),
        ({"architecture": "other"}, "architecture"),
        ({"caption_loss": "full"}, "caption_loss"),
        ({"projection": "tanh"}, "projection"),
        ({"layer_norm": "rms"}, "layer_norm"),
        ({"heads": 7}, "heads"),
        ({"heads": 0}, "heads"),
        ({"grid": (0, 7)}, "grid"),
        ({"grid": (7, 7, 7)}, "grid"),
        ({"dropout": 1.0}, "dropout"),
        ({"classes": -1}, "classes"),
        ({"mask": 0}, "special ids"),
        ({"architecture": "idc"}, "classes"),
        ({"architecture": "idc", "classes": 3, "fine_channels": -1}, "fine_channels"),
        ({"architecture": "idc", "classes": 3, "pooled": 0}, "pooled"),
        ({"architecture": "idc", "classes": 3, "fine_channels": 512}, "feature_dim"),
    ],
)
def test_impossible_configurations_are_refused(fields, named):
    with pytest.raises(ConfigError, match=named) as refused:
        ModelConfig(**({"vocab_size": 30} | fields))
    assert "\n" not in str(refused.value)


def test_the_published_layer_norm_by_its_formula():
    """(x - mean) / (std + eps), std unbiased; a constant row is the bias, and its gradient is a number."""
    generator = torch.Generator().manual_seed(0)
    for eps in (1e-6, 1e-12):
        norm = UnbiasedLayerNorm(16, eps).double()
        with torch.no_grad():
            norm.weight.copy_(torch.randn(16, generator=generator))
            norm.bias.copy_(torch.randn(16, generator=generator))
        for spread in (1.0, 1e-4):
            x = (spread * torch.randn(5, 16, dtype=torch.float64, generator=generator) + 0.3).requires_grad_()
            expected = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) * norm.weight + norm.bias
            torch.testing.assert_close(norm(x), expected, rtol=1e-10, atol=1e-10)
            gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (norm(x), expected)]
            torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10 * float(gradients[1].abs().max()))
        constant = torch.full((2, 16), 0.5, dtype=torch.float64, requires_grad=True)
        found = norm(constant)
        assert torch.equal(found, norm.bias.expand(2, 16))
        found.sum().backward()
        assert bool(constant.grad.isfinite().all())
