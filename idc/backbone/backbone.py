"""Grid features of a frozen image backbone: what the captioning models see of an image.

A convolutional backbone gives two levels by default, strides 8 and 16; whatever it has beyond the last is cut off. The
finer level is folded 2 x 2 into the coarser grid, so that a cell carries its four fine cells side by side, then its own
channels: F = 4 * C8 + C16 for each of the N = h * w cells of stride 16, row by row. A backbone without such levels (a
vision transformer) gives its last patch grid.
"""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from idc.backbone.canvas import Canvas
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import (
    DEFAULT_BACKBONE,
    LITE0_MEAN_STD,
    BackboneError,
    is_lite0_package_format,
    map_by_position,
    packaged_weights,
    read_weights,
    require_hub,
    tensors_sha256,
)

# Images put through at once. On CPU the activations of 16 images stay in the cache: 560 images/s on one core, against
# 310 for 64 images and 230 for 128 (efficientnet_lite0, 160 x 128, bf16).
CPU_CHUNK, GPU_CHUNK = 16, 256
STRIDES = (8, 16)  # of the levels that are taken unless others are named
TimmModel = Any  # a torch module with methods of timm's own: prune_intermediate_layers, forward_intermediates
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Backbone:
    """A frozen timm model from uint8 images to grid features.

    name: a timm model. weights: a local file (safetensors or torch zip); "" = the weights of an installed pip package
    if there is one, else those of timm's hub. size: (height, width) in pixels that images are fitted into, keeping
    their aspect; what is left is filled with the nearest edge pixels. Sides are rounded up to a whole grid.
    strides: levels taken, each a multiple of the one before. precision: "bf16" or "fp32"; None = bf16 where the
    processor computes with it.
    Raises BackboneError, one line with the fix, where the model or the weights cannot be had.

    Attributes: grid (rows, columns), dim (F), channels of each level, weights_sha256 of the tensors in use.
    """

    def __init__(
        self,
        name: str = DEFAULT_BACKBONE,
        weights: str = "",
        size: tuple[int, int] = (128, 160),
        strides: tuple[int, ...] = STRIDES,
        device: str | torch.device = "cpu",
        precision: str | None = None,
    ) -> None:
        self.name = name
        self.size = (int(size[0]), int(size[1]))
        self.device = torch.device(device)
        self.precision = precision or ("bf16" if _computes_bf16(self.device) else "fp32")
        if self.precision not in PRECISIONS:
            raise BackboneError(f"precision is {precision!r}; it can be {' or '.join(PRECISIONS)}")
        if min(self.size) < 16:
            raise BackboneError(f"size is {self.size}; height and width must be 16 pixels or more")

        reductions, fixed_size = _levels(name)
        self.strides, self._indices = _choose_levels(reductions, tuple(strides))
        stride = self.strides[-1]
        height, width = (-(-side // stride) * stride for side in self.size)
        self.canvas = (height, width)  # in pixels
        self._place = Canvas(self.size, self.canvas).place
        self.grid = (self.canvas[0] // stride, self.canvas[1] // stride)

        model, self.mean, self.std = _build(name, weights, self.canvas if fixed_size else None)
        # Tiled to a row of pixels: arithmetic over a last axis of 3 would take as long as a quarter of the network.
        scale, shift = 1 / (255 * torch.tensor(self.std)), -torch.tensor(self.mean) / torch.tensor(self.std)
        self._scale, self._shift = (values.repeat(self.canvas[1]).to(self.device) for values in (scale, shift))

        model.eval().requires_grad_(False)
        model.prune_intermediate_layers(list(self._indices), prune_norm=False, prune_head=True)
        self.weights_sha256 = tensors_sha256(model.state_dict())
        self._normed = len(set(reductions)) == 1 and len(reductions) > 1  # transformers end in a norm, pyramids do not
        # The same weights give other features under another padding of strided convolutions.
        self.same_padding = any(type(module).__name__ == "Conv2dSame" for module in model.modules())
        self.channels = self._probe(model)
        self.dim = sum(count * (stride // level) ** 2 for count, level in zip(self.channels, self.strides, strict=True))
        self._model = self._prepare_model(model)
        probe = self._fold(self._levels_of(self._model, self._normalise(torch.zeros(1, *self.canvas, 3).byte())))
        assert probe.shape == (1, self.cells, self.dim), (probe.shape, self.grid, self.dim)

    @property
    def cells(self) -> int:
        """N, the grid cells of one image."""
        return self.grid[0] * self.grid[1]

    def describe(self) -> dict[str, Any]:
        """Everything that decides the features, as plain values: for manifests and exported models.

        And, to be read by people, the precision that they were computed with, in which machines differ.
        """
        return {
            "backbone": self.name,
            "weights_sha256": self.weights_sha256,
            "same_padding": self.same_padding,
            "grid": list(self.grid),
            "dim": self.dim,
            "size": list(self.size),
            "strides": list(self.strides),
            "channels": list(self.channels),
            "mean": list(self.mean),
            "std": list(self.std),
            "precision": self.precision,
            "resize": "fit, bicubic",
            "padding": "edge, centred",
        }

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], weights: str = "", device: str | torch.device = "cpu"
    ) -> Backbone:
        """The backbone that `describe` described. BackboneError where the weights at hand are other ones.

        It computes in the precision of the description where this machine does, else in fp32: machines differ in it,
        features hardly.
        """
        exact = description.get("precision") != "bf16" or not _computes_bf16(torch.device(device))
        backbone = cls(
            description["backbone"],
            weights,
            tuple(description["size"]),
            tuple(description["strides"]),
            device,
            "fp32" if exact else "bf16",
        )
        for field in ("weights_sha256", "same_padding", "grid", "dim", "mean", "std"):
            if backbone.describe()[field] != description.get(field):
                raise BackboneError(
                    f"the backbone {backbone.name} at hand differs in {field} from the one the model was trained with; "
                    "name the right weight file"
                )
        return backbone

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) of any size -> uint8 of the canvas' size: fitted into `size`, edges replicated."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise BackboneError(f"an image is uint8 of shape (height, width, 3), not {image.dtype} {image.shape}")
        top, left, height, width = self._place(*image.shape[:2])
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        if (height, width) == self.canvas:
            return image
        bottom, right = self.canvas[0] - top - height, self.canvas[1] - left - width
        return np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")

    def features(self, images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """B uint8 RGB images (H, W, 3), each of its own size -> float16 (B, N, F) in main memory."""
        chunks = [images[start : start + self.chunk] for start in range(0, len(images), self.chunk)] or [images]
        return torch.cat([self.features_of_canvases([self.prepare(np.asarray(i)) for i in chunk]) for chunk in chunks])

    @property
    def chunk(self) -> int:
        """Images put through at once on this device."""
        return CPU_CHUNK if self.device.type == "cpu" else GPU_CHUNK

    def features_of_canvases(self, canvases: Sequence[np.ndarray]) -> Tensor:
        """B images that `prepare` has made -> float16 (B, N, F) in main memory."""
        result = torch.empty(len(canvases), self.cells, self.dim, dtype=torch.float16)
        for start in range(0, len(canvases), self.chunk):
            pixels = np.stack(canvases[start : start + self.chunk])
            levels = self._levels_of(self._model, self._normalise(torch.from_numpy(pixels)))
            result[start : start + self.chunk] = self._fold(levels)
        if not bool(result.isfinite().all()):
            raise BackboneError(f"the backbone {self.name} gives features that float16 cannot hold")
        return result

    def _normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> normalised (B, 3, H, W), channels last in memory, which is twice as fast on CPUs."""
        rows = pixels.to(self.device).flatten(2).float()
        normal = torch.addcmul(self._shift, rows, self._scale).to(PRECISIONS[self.precision])
        return normal.view(pixels.shape).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def _levels_of(self, model: TimmModel, pixels: Tensor) -> list[Tensor]:
        return model.forward_intermediates(
            pixels, list(self._indices), norm=self._normed, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )

    def _fold(self, levels: list[Tensor]) -> Tensor:
        """Levels (B, C_s, h * k, w * k), k = last stride / s -> float16 (B, h * w, sum of k * k * C_s).

        Of a folded level, a cell has its k * k fine cells row by row, each with its channels side by side.
        """
        rows, columns = self.grid
        folded = [
            level.unflatten(2, (rows, -1)).unflatten(4, (columns, -1)).permute(0, 2, 4, 3, 5, 1).flatten(3)
            for level in levels
        ]
        return torch.cat(folded, dim=-1).flatten(1, 2).to("cpu", torch.float16)

    def _probe(self, model: TimmModel) -> list[int]:
        """Channels of each level, from a dummy image: models disagree with what they declare (prefix tokens, sizes)."""
        try:
            levels = self._levels_of(model, torch.zeros(1, 3, *self.canvas))
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise BackboneError(
                f"the backbone {self.name} does not take images of {self.canvas[0]} x {self.canvas[1]} pixels "
                f"({str(error).splitlines()[0][:120]}); choose another size"
            ) from None
        for level, stride in zip(levels, self.strides, strict=True):
            wanted = (1, level.shape[1], self.canvas[0] // stride, self.canvas[1] // stride)
            if tuple(level.shape) != wanted:
                raise BackboneError(
                    f"the backbone {self.name} gives {tuple(level.shape)} at stride {stride} where {wanted} was "
                    "expected; choose another backbone or size"
                )
        return [level.shape[1] for level in levels]

    def _prepare_model(self, model: TimmModel) -> TimmModel:
        """Folds batch norms into convolutions (20 % faster) where that provably changes nothing; casts; moves."""
        fused = copy.deepcopy(model)
        if _fuse(fused):
            generator = torch.Generator().manual_seed(0)
            pixels = torch.randn(1, 3, *self.canvas, generator=generator)
            pairs = zip(self._levels_of(model, pixels), self._levels_of(fused, pixels), strict=True)
            if all(bool((a - b).abs().max() <= 1e-3 * a.abs().max()) for a, b in pairs):
                model = fused
        return model.to(self.device, PRECISIONS[self.precision], memory_format=torch.channels_last)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _levels(name: str) -> tuple[list[int], bool]:
    """(strides of the model's levels, whether it is built for one image size), without making its weights."""
    timm = import_timm()
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise BackboneError(
            f"timm has no model {name!r}" + (f"; did you mean {near[0]}?" if near else "; see timm.list_models()")
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise BackboneError(f"timm cannot build {name!r} ({str(error).splitlines()[0]})") from None
    if not hasattr(model, "forward_intermediates"):
        raise BackboneError(f"timm's {name} does not give its inner levels; choose another backbone")
    return [level["reduction"] for level in model.feature_info], bool(model.pretrained_cfg.get("fixed_input_size"))


def _choose_levels(reductions: list[int], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(strides, their places among the model's levels); the last level alone where a stride is not to be had."""
    if not strides or any(coarse % fine for fine, coarse in zip(strides, strides[1:], strict=False)):
        raise BackboneError(f"strides are {strides}; each must be a multiple of the one before")
    if set(strides) <= set(reductions) and len(set(reductions)) > 1:
        last = {reduction: place for place, reduction in enumerate(reductions)}
        return strides, tuple(last[stride] for stride in strides)
    return (reductions[-1],), (len(reductions) - 1,)


def _build(name: str, weights: str, size: tuple[int, int] | None) -> tuple[TimmModel, tuple, tuple]:
    """(timm model with weights, mean, std)."""
    timm = import_timm()
    arguments: dict[str, Any] = {} if size is None else {"img_size": size}
    path = weights or packaged_weights(name)
    if not path:
        published = timm.create_model(name, pretrained=False, **arguments).pretrained_cfg
        require_hub(name, published.get("hf_hub_id"), published.get("url"))
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0, **arguments)
        except (OSError, RuntimeError) as error:
            raise BackboneError(f"the hub's weights of {name} cannot be had ({str(error).splitlines()[0]})") from None
        return model, tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])

    tensors = read_weights(path)
    if is_lite0_package_format(tensors):
        # Trained where strided convolutions pad below and on the right alone. With timm's own padding of this model the
        # cells of stride 8 and 16 look 7 and 13 pixels up and to the left of where they stand.
        model = timm.create_model(name, pad_type="same", bn_eps=1e-3)
        try:
            model.load_state_dict(map_by_position(tensors, model))
        except BackboneError as error:
            raise BackboneError(f"{path} does not fit the backbone {name}: {error}") from None
        return model, *LITE0_MEAN_STD
    model = timm.create_model(name, num_classes=0, **arguments)
    try:
        # timm's own adaptation, where the model has one: older names of parameters, position tables of another size.
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        missing = model.load_state_dict(adapt(tensors, model) if adapt else tensors, strict=False).missing_keys
    except (RuntimeError, KeyError, AttributeError) as error:
        raise BackboneError(f"{path} does not fit the backbone {name} ({' '.join(str(error).split())[:200]})") from None
    missing = [key for key in missing if not key.startswith("head")]
    if missing:
        raise BackboneError(
            f"{path} does not fit the backbone {name}: {missing[0]} and {len(missing) - 1} more are not in it"
        )
    return model, tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])


def _fuse(model: nn.Module) -> int:
    """Folds each batch norm that follows a convolution in its parent's order into it; returns how many."""
    count = 0
    for parent in list(model.modules()):
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before and before[1].out_channels == child.num_features:
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))  # timm's batch norms carry the activation
                count += 1
            before = (name, child) if isinstance(child, nn.Conv2d) else None
    return count
