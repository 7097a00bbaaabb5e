import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from idc.backbone.backbone import Backbone
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import BackboneError, packaged_weights, read_weights, tensors_sha256


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(size=(64, 80), precision="fp32")


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_shape_and_type_are_those_declared(backbone):
    features = backbone.features([image(64, 80), image(300, 200), image(31, 80)])
    assert features.shape == (3, backbone.cells, backbone.dim) == (3, 20, 4 * 40 + 112)
    assert features.dtype == torch.float16


def test_equals_timm_on_the_same_pixels(backbone):
    """Weights by position, normalisation, fused batch norms, levels and folding, against timm's own forward."""
    timm = import_timm()
    model = timm.create_model("tf_efficientnet_lite0").eval()  # the same layers, padded as these weights were trained
    tensors = read_weights(packaged_weights("efficientnet_lite0"))
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    pixels = image(64, 80)
    with torch.no_grad():
        normal = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        levels = model.forward_intermediates(normal, intermediates_only=True)
    fine = next(level for level in levels if level.shape[2:] == (8, 10))[0]
    coarse = next(level for level in levels if level.shape[2:] == (4, 5))[0]
    got = backbone.features([pixels])[0].float().view(4, 5, -1)
    torch.testing.assert_close(got[..., 160:], coarse.permute(1, 2, 0), atol=0.02, rtol=2e-3)
    folded = got[..., :160].view(4, 5, 2, 2, 40)  # row and column inside the cell, channel
    unfolded = folded.transpose(1, 2).reshape(8, 10, 40)
    torch.testing.assert_close(unfolded, fine.permute(1, 2, 0), atol=0.02, rtol=2e-3)


def test_cells_look_at_their_own_part_of_the_image(backbone):
    """A change in one corner changes the cells there most: rows first, then columns."""
    before = image(64, 80)
    after = before.copy()
    after[48:, 64:] = 255 - after[48:, 64:]
    difference = (backbone.features([before]) - backbone.features([after])).float().norm(dim=2)[0].view(4, 5)
    assert difference.argmax() == 19
    assert difference[0, 0] < 0.3 * difference[3, 4]


def test_images_are_fitted_and_their_edges_replicated(backbone):
    red, blue = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)
    wide = np.empty((40, 160, 3), np.uint8)
    wide[:20], wide[20:] = red, blue
    canvas = backbone.prepare(wide)  # 160 x 40 becomes 80 x 20 and is centred in 80 x 64
    assert canvas.shape == (64, 80, 3)
    assert (canvas[:30] == red).all() and (canvas[34:] == blue).all()
    whole = image(64, 80)
    assert (backbone.prepare(whole) == whole).all()


def test_bf16_is_close_to_fp32(backbone):
    images = [image(64, 80, seed) for seed in range(3)]
    exact = backbone.features(images).float().flatten(1)
    close = Backbone(size=(64, 80), precision="bf16").features(images).float().flatten(1)
    assert torch.cosine_similarity(exact, close).min() > 0.999


def test_chunks_do_not_change_the_order(backbone):
    images = [image(64, 80, seed) for seed in range(19)]
    together = backbone.features(images)
    alone = torch.cat([backbone.features([one]) for one in images])
    torch.testing.assert_close(together.float(), alone.float(), atol=0.05, rtol=0.01)


def test_a_description_makes_the_same_backbone(backbone):
    again = Backbone.from_description(backbone.describe())
    assert again.describe() == backbone.describe()
    with pytest.raises(BackboneError, match="weights_sha256.*right weight file"):
        Backbone.from_description(backbone.describe() | {"weights_sha256": "0" * 64})


@pytest.mark.parametrize(
    "name, dim, strides", [("resnet18", 4 * 128 + 256, (8, 16)), ("vit_tiny_patch16_224", 192, (16,))]
)
def test_any_timm_model_with_a_local_file(tmp_path, name, dim, strides):
    torch.manual_seed(0)
    model = import_timm().create_model(name, num_classes=7)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    from_torch = Backbone(name, str(tmp_path / "weights.pth"), size=(64, 80), precision="fp32")
    assert (from_torch.dim, from_torch.strides, from_torch.grid) == (dim, strides, (4, 5))
    from_safetensors = Backbone(name, str(tmp_path / "weights.safetensors"), size=(64, 80), precision="fp32")
    assert from_torch.weights_sha256 == from_safetensors.weights_sha256
    pixels = [image(64, 80)]
    assert torch.equal(from_torch.features(pixels), from_safetensors.features(pixels))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(BackboneError, match="did you mean efficientnet_lite0"):
        Backbone("efficientnet_lite00")
    with pytest.raises(BackboneError, match="no such weight file"):
        Backbone(weights=str(tmp_path / "missing.pth"))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(BackboneError, match="text.pth"):
        Backbone(weights=str(tmp_path / "text.pth"))
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "object.pth")
    with pytest.raises(BackboneError, match="never unpickled"):
        Backbone(weights=str(tmp_path / "object.pth"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(BackboneError, match="does not fit the backbone resnet18"):
        Backbone("resnet18", str(tmp_path / "other.pth"))
    with pytest.raises(BackboneError, match="uint8"):
        Backbone(size=(64, 80)).features([np.zeros((4, 4, 3), np.float32)])


def test_weights_are_told_apart_by_their_bytes():
    one = {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.long)}
    assert tensors_sha256(one) == tensors_sha256(dict(reversed(one.items())))
    assert tensors_sha256(one) != tensors_sha256(one | {"a": torch.tensor([0.0, 0.0, 1.0])})
    assert tensors_sha256(one) != tensors_sha256(one | {"a": torch.zeros(3, 1)})


@pytest.mark.parametrize("place", [(5, 4), (9, 12)])
def test_a_cell_looks_where_it_stands(place):
    """A spot in the middle of a fine cell changes the features of that cell most."""
    backbone = Backbone(size=(128, 160))
    image = np.random.default_rng(0).integers(90, 160, (128, 160, 3), np.uint8)
    other = image.copy()
    top, left = 8 * place[0], 8 * place[1]
    other[top : top + 8, left : left + 8] = 255 - other[top : top + 8, left : left + 8]
    other[top + 2 : top + 6, left + 2 : left + 6] = (255, 0, 0)
    before, after = backbone.features([image, other]).float()
    fine = 4 * backbone.channels[0]
    change = (after - before)[:, :fine].view(*backbone.grid, 2, 2, -1).norm(dim=-1).transpose(1, 2).reshape(16, 20)
    weight = change / change.sum()
    rows, columns = torch.arange(16.0), torch.arange(20.0)
    assert abs(float((weight.sum(1) * rows).sum()) - place[0]) < 0.4
    assert abs(float((weight.sum(0) * columns).sum()) - place[1]) < 0.4
