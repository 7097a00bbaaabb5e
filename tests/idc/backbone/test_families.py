"""Each family of docs/backbones.md: built small with random weights, on images that are not square."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from idc.backbone.backbone import Backbone
from idc.backbone.layout import layout
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import BackboneError, load_weights, packaged_weights

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
FAMILIES: dict[str, dict[str, Any]] = {  # what makes a model of the page small
    "resnet101.tv_in1k": {"layers": (1, 1, 1, 1)},
    "convnext_tiny.in12k_ft_in1k": {"depths": (1, 1, 1, 1), "dims": (16, 32, 64, 128)},
    "efficientnet_lite0": {},
    "mobilenetv4_conv_small.e2400_r224_in1k": {},
    "regnety_004.tv2_in1k": {},
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": VIT,
    "vit_base_patch14_dinov2.lvd142m": VIT,
    "vit_base_patch14_reg4_dinov2.lvd142m": VIT,
    "vit_base_patch16_dinov3.lvd1689m": VIT,
    "vit_base_patch16_siglip_224.v2_webli": VIT,
    "vit_base_patch32_clip_224.openai": VIT,
    "eva02_base_patch14_224.mim_in22k": VIT,
    "deit_base_distilled_patch16_224.fb_in1k": VIT,
    "beitv2_base_patch16_224.in1k_ft_in22k_in1k": VIT,
    "vit_base_r50_s16_224.orig_in21k": VIT,
    "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k": SWIN,
    "swinv2_tiny_window8_256.ms_in1k": SWIN,
    "maxvit_tiny_tf_224.in1k": {"embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1), "stem_width": 16},
    "hiera_tiny_224.mae_in1k_ft_in1k": {"embed_dim": 24, "stages": (1, 1, 1, 1)},
    "pvt_v2_b0.in1k": {},
}
SIZE = (64, 96)
Make = Callable[..., Backbone]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """make(name, strides, size) -> the small model of that family, its weights from a file of its own size."""
    timm = import_timm()
    create = timm.create_model

    def made(name: str, strides: tuple[int, ...] = (), size: tuple[int, int] = SIZE, file: str = "") -> Backbone:
        monkeypatch.setattr(timm, "create_model", partial(create, **FAMILIES[name]))
        layout.cache_clear()
        if not file:
            file = str(tmp_path / f"{name}.safetensors")
            save_file(weights(name), file)
        return Backbone(name, file, size, strides, precision="fp32")

    yield made
    layout.cache_clear()


def weights(name: str) -> dict[str, Tensor]:
    """Random ones, those that begin at 0 too."""
    torch.manual_seed(0)
    made = import_timm().create_model(name, num_classes=0).state_dict()
    for key, value in made.items():
        if value.is_floating_point() and not value.any() and "running" not in key:
            value.normal_(std=0.02)
    return made


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_follow_the_image(make: Make, name: str) -> None:
    """The grid of an image that is not square; what changes in one corner changes the cells there most."""
    backbone = make(name)
    stride = backbone.strides[-1]
    assert backbone.grid == tuple(-(-side // stride) for side in SIZE)
    before = image(*SIZE)
    after = before.copy()
    after[-stride:, -stride:] = 255 - after[-stride:, -stride:]
    features = backbone.features([before, after, image(50, 31)])
    assert features.shape == (3, backbone.cells, backbone.dim) and features.dtype == torch.float16
    assert bool(features.isfinite().all()) and float(features.float().std()) > 1e-3
    changed = (features[0] - features[1]).float().norm(dim=-1).view(backbone.grid)
    row, column = divmod(int(changed.argmax()), backbone.grid[1])
    assert row >= backbone.grid[0] / 2 and column >= backbone.grid[1] / 2, changed
    assert float(changed[0, 0]) < 0.5 * float(changed[-1, -1])


PAGE = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text()
TABLE = PAGE[PAGE.index("| family |") : PAGE.index("\n\nLicences")]
ROWS = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in TABLE.splitlines()[2:]]


@pytest.mark.parametrize("row", ROWS, ids=[row[1] for row in ROWS])
def test_the_page_says_what_a_model_gives(row: list[str]) -> None:
    """At its full size, on no device: levels, grid and channels; resizing and licence are those of timm."""
    _, name, strides, grid, channels, resizing, licence, weights = row
    taken, published = layout(name, (224, 224)), import_timm().get_pretrained_cfg(name)
    assert strides == ",".join(map(str, taken.strides)) and grid == "x".join(map(str, taken.grid))
    assert channels == f"{taken.dim:,}" and resizing == published.interpolation
    assert licence == (published.license or "not said")
    assert weights == ("package" if packaged_weights(name) else "hub" if published.hf_hub_id else "file")


def test_the_page_has_every_family_that_is_tried() -> None:
    assert [row[1] for row in ROWS] == list(FAMILIES)
    assert len(re.findall(r"\w\S*", PAGE)) <= 500


def test_strides_choose_levels(make: Make) -> None:
    """Of a pyramid its stages; of a vision transformer layers, and means over patches."""
    coarse = make("resnet101.tv_in1k", (32,))
    assert (coarse.grid, coarse.dim, coarse.strides) == ((2, 3), 2048, (32,))
    assert make("resnet101.tv_in1k", (4, 8, 32)).dim == 64 * 256 + 16 * 512 + 2048
    vit, pixels = "vit_base_patch16_224.augreg2_in21k_ft_in1k", [image(*SIZE)]
    last = make(vit).features(pixels)
    two = make(vit, (16, 16))
    assert (two.grid, two.dim, two.channels) == ((4, 6), 96, (48, 48))
    assert torch.equal(two.features(pixels)[..., 48:], last) and not torch.equal(two.features(pixels)[..., :48], last)
    folded = make(vit, (16, 32))
    assert (folded.grid, folded.dim) == ((2, 3), 5 * 48)
    patches = last.float().view(2, 2, 3, 2, 48)  # of one image: rows, columns
    torch.testing.assert_close(folded.features(pixels)[0, :, 4 * 48 :].float(), patches.mean((1, 3)).flatten(0, 1),
                               atol=2e-3, rtol=2e-3)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "strides", "said"),
    [
        ("resnet101.tv_in1k", (8, 12), "each must be a multiple of the one before"),
        ("resnet101.tv_in1k", (64,), "no strides 64: name one or more of 2,4,8,16,32"),
        ("vit_base_patch14_dinov2.lvd142m", (8, 16), "layers of stride 14 and no strides 8,16: name multiples of 14"),
    ],
)
def test_levels_that_a_model_has_not_are_refused(name: str, strides: tuple[int, ...], said: str) -> None:
    with pytest.raises(BackboneError, match=f"^[^\n]*{said}[^\n]*$"):
        layout(name, (224, 224), strides)


@pytest.mark.parametrize(
    ("name", "canvas"),
    [
        ("vit_base_patch14_dinov2.lvd142m", (154, 336)),  # whole patches
        ("maxvit_tiny_tf_224.in1k", (160, 352)),  # windows of a 32nd of the image
        ("mvitv2_tiny.fb_in1k", (352, 352)),  # squares alone
    ],
)
def test_the_canvas_is_as_large_as_the_model_needs(name: str, canvas: tuple[int, int]) -> None:
    assert layout(name, (150, 330)).canvas == canvas


def clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As OpenAI has named them, beside those of the text."""
    names = {
        "patch_embed.proj": "conv1", "pos_embed": "positional_embedding", "cls_token": "class_embedding",
        "blocks.": "transformer.resblocks.", "norm_pre": "ln_pre", "norm1": "ln_1", "norm2": "ln_2",
        "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    found = {"logit_scale": torch.ones(()), "visual.proj": torch.randn(48, 16)}
    for key, value in tensors.items():
        key = re.sub("^norm\\.", "ln_post.", key)
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        found[f"visual.{key}"] = value.flatten() if key.startswith("class") else value.squeeze(0)
        if key == "conv1.weight":
            found[f"visual.{key}"] = value
    return found


def dinov2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Meta has named them: registers, and a place of the class token among the positions."""
    found = dict(tensors)
    found["register_tokens"] = found.pop("reg_token")
    place = torch.randn(1, 1, 48)
    found["cls_token"], found["pos_embed"] = found["cls_token"] - place, torch.cat([place, found["pos_embed"]], dim=1)
    return found | {"mask_token": torch.zeros(1, 48)}


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("vit_base_patch32_clip_224.openai", clip), ("vit_base_patch14_reg4_dinov2.lvd142m", dinov2)],
)
def test_the_authors_own_files_fit(
    make: Make, tmp_path: Path, name: str, theirs: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    ours = make(name)
    torch.save(theirs(weights(name)), tmp_path / "authors.pth")
    other = make(name, file=str(tmp_path / "authors.pth"))
    pixels = [image(*SIZE)]
    torch.testing.assert_close(other.features(pixels), ours.features(pixels), atol=2e-3, rtol=2e-3)
    lacking = {key: value for key, value in weights(name).items() if key != "blocks.1.norm1.weight"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(BackboneError, match="lacking.*does not fit.*blocks.1.norm1.weight and 0 more"):
        make(name, file=str(tmp_path / "lacking.safetensors"))


def test_positions_of_a_square_are_resized_to_the_image() -> None:
    """Also where timm does not: a table that rises along the rows of 4 x 4 cells rises along those of 4 x 16."""
    model = torch.nn.Module()
    model.register_parameter("pos_embed", torch.nn.Parameter(torch.zeros(1, 64, 3)))
    rising = torch.arange(4.0).repeat_interleave(4)[None, :, None].expand(1, 16, 3).clone()
    missing = load_weights(model, "hiera_tiny_224", {"pos_embed": rising}, (16, 64), "it")
    table = model.get_parameter("pos_embed").data.view(4, 16, 3)
    assert (
        not missing
        and torch.allclose(table.std(1), torch.zeros(4, 3), atol=1e-5)
        and bool((table.diff(dim=0) > 0.5).all())
    )
    with pytest.raises(BackboneError, match="^it .*size mismatch"):
        load_weights(model, "hiera_tiny_224", {"pos_embed": torch.zeros(1, 15, 3)}, (16, 64), "it")


def test_images_are_resized_as_the_model_was_trained(make: Make, tmp_path: Path) -> None:
    """And as the description of an older model says."""
    name, large = "resnet101.tv_in1k", image(128, 192)
    backbone = make(name)
    assert backbone.describe()["resize"] == "fit, bilinear"
    older = backbone.describe() | {"resize": "fit, bicubic"}
    again = Backbone.from_description(older, str(tmp_path / f"{name}.safetensors"))
    for method, of in ((Image.Resampling.BILINEAR, backbone), (Image.Resampling.BICUBIC, again)):
        assert np.array_equal(of.prepare(large), np.asarray(Image.fromarray(large).resize(SIZE[::-1], method)))
    assert again.describe() == older


def test_a_program_in_place_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "clip.pt"))
    with pytest.raises(BackboneError, match="clip.pt is a TorchScript program.*save its tensors"):
        Backbone("vit_base_patch32_clip_224.openai", str(tmp_path / "clip.pt"))
