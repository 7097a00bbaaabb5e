"""Grid features of a frozen image backbone: what the captioning models see of an image.

A cell of the grid carries the features of one level or of several: a finer level is folded into the coarser grid, so
that a cell carries its k x k fine cells side by side, then its own channels. A convolutional backbone gives strides 8
and 16 by default: F = 4 * C8 + C16 for each of the N = h * w cells of stride 16, row by row; whatever it has beyond the
last level is cut off. A vision transformer gives its last patch grid, class and register tokens left out.
`idc.backbone.layout` says which levels other strides take.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from idc.backbone.canvas import Canvas
from idc.backbone.layout import Layout, TimmModel, layout
from idc.backbone.network import GridNetwork
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import (
    DEFAULT_BACKBONE,
    LITE0_MEAN_STD,
    BackboneError,
    is_lite0_package_format,
    load_weights,
    map_by_position,
    packaged_weights,
    read_conventions,
    read_weights,
    require_hub,
    tensors_sha256,
)

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
RESIZE = "fit, "  # before the interpolation, in descriptions


class Backbone:
    """A frozen timm model from uint8 images to grid features.

    name: a timm model. weights: a local file (safetensors or torch zip); "" = the weights of an installed pip package
    if there is one, else those of timm's hub. size: (height, width) in pixels that images are fitted into, keeping
    their aspect; what is left is filled with the nearest edge pixels. Sides are rounded up to a whole grid.
    strides: levels taken, each a multiple of the one before; () = 8 and 16 where the model has both, else its last.
    precision: "bf16" or "fp32"; None = bf16 where the processor computes with it. interpolation: of the resizing, as
    Pillow names it; None = the model's own, of timm's data configuration, as mean and std are. fused: batch norms are
    folded into convolutions where that changes nothing; what is to be trained has to keep them.
    Raises BackboneError, one line with the fix, where the model or the weights cannot be had.

    Attributes: grid (rows, columns), dim (F), channels of each level, weights_sha256 of the tensors in use; network,
    the module that computes; conventions, what beside its name the weights were trained with (`save_weights`).
    """

    def __init__(
        self,
        name: str = DEFAULT_BACKBONE,
        weights: str = "",
        size: tuple[int, int] = (128, 160),
        strides: tuple[int, ...] = (),
        device: str | torch.device = "cpu",
        precision: str | None = None,
        interpolation: str | None = None,
        fused: bool = True,
    ) -> None:
        self.name = name
        self.size = (int(size[0]), int(size[1]))
        self.device = torch.device(device)
        self.precision = precision or ("bf16" if _computes_bf16(self.device) else "fp32")
        if self.precision not in PRECISIONS:
            raise BackboneError(f"precision is {self.precision!r}; it can be {' or '.join(PRECISIONS)}")

        self._layout = layout(name, self.size, tuple(strides))
        self.strides, self.channels, self.canvas = self._layout.strides, self._layout.channels, self._layout.canvas
        self.grid, self.dim = self._layout.grid, self._layout.dim
        self._place = Canvas(self.size, self.canvas)

        model, self.conventions, own = _build(name, weights, self._layout)
        self.mean, self.std = tuple(self.conventions["mean"]), tuple(self.conventions["std"])
        self.interpolation = interpolation or own
        self._resampling = Image.Resampling[self.interpolation.upper()]
        self.weights_sha256 = tensors_sha256(model.state_dict())
        # The same weights give other features under another padding of strided convolutions.
        self.same_padding = any(type(module).__name__ == "Conv2dSame" for module in model.modules())
        model = self._prepare_model(model, fused)
        self.network = GridNetwork(name, model, self._layout, self.mean, self.std).to(self.device)
        probe = self._features(torch.zeros(1, *self.canvas, 3).byte())
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
            "resize": RESIZE + self.interpolation,
            "padding": "edge, centred",
        }

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], weights: str = "", device: str | torch.device = "cpu"
    ) -> Backbone:
        """The backbone that `describe` described. BackboneError where the weights at hand are other ones.

        It computes in the precision of the description where this machine does, else in fp32: machines differ in it,
        features hardly. Images are resized as the description says.
        """
        exact = description.get("precision") != "bf16" or not _computes_bf16(torch.device(device))
        backbone = cls(
            description["backbone"],
            weights,
            tuple(description["size"]),
            tuple(description["strides"]),
            device,
            "fp32" if exact else "bf16",
            description.get("resize", RESIZE + "bicubic").removeprefix(RESIZE),
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
        return self._place.fit(image, self._resampling)

    def features(self, images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """B uint8 RGB images (H, W, 3), each of its own size -> float16 (B, N, F) in main memory."""
        chunks = [images[start : start + self.chunk] for start in range(0, len(images), self.chunk)] or [images]
        return torch.cat([self.features_of_canvases([self.prepare(np.asarray(i)) for i in chunk]) for chunk in chunks])

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Canvases uint8 (B, H, W, 3), as `prepare` makes them -> float16 (B, N, F): one pass, which can be traced."""
        network = self.network
        return network.fold(network.net(network.normalise(pixels))).to(torch.float16)

    @property
    def chunk(self) -> int:
        """Images put through at once on this device."""
        return self.network.chunk

    def features_of_canvases(self, canvases: Sequence[np.ndarray]) -> Tensor:
        """B images that `prepare` has made -> float16 (B, N, F) in main memory."""
        result = torch.empty(len(canvases), self.cells, self.dim, dtype=torch.float16)
        for start in range(0, len(canvases), self.chunk):
            pixels = np.stack(canvases[start : start + self.chunk])
            result[start : start + self.chunk] = self._features(torch.from_numpy(pixels))
        if not bool(result.isfinite().all()):
            raise BackboneError(f"the backbone {self.name} gives features that float16 cannot hold")
        return result

    @torch.inference_mode()
    def _features(self, pixels: Tensor) -> Tensor:
        return self.of_pixels(pixels).cpu()

    @torch.inference_mode()
    def _levels_of(self, model: TimmModel, pixels: Tensor) -> list[Tensor]:
        return self._layout.levels(model, pixels)

    def _prepare_model(self, model: TimmModel, fused: bool) -> TimmModel:
        """Folds batch norms into convolutions (20 % faster) where that provably changes nothing; casts; moves."""
        other = copy.deepcopy(model) if fused else None
        if other is not None and _fuse(other):
            generator = torch.Generator().manual_seed(0)
            pixels = torch.randn(1, 3, *self.canvas, generator=generator)
            pairs = zip(self._levels_of(model, pixels), self._levels_of(other, pixels), strict=True)
            if all(bool((a - b).abs().max() <= 1e-3 * a.abs().max()) for a, b in pairs):
                model = other
        return model.to(self.device, PRECISIONS[self.precision], memory_format=torch.channels_last)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _build(name: str, weights: str, taken: Layout) -> tuple[TimmModel, dict[str, Any], str]:
    """(timm model with weights, cut off after the last level that is taken; its conventions; interpolation)."""
    timm = import_timm()
    path, missing = weights or packaged_weights(name), set[str]()
    where = f"{path} does not fit the backbone {name}"
    tensors, own = (read_weights(path), read_conventions(path)) if path else ({}, {})
    packaged, arguments = is_lite0_package_format(tensors), own.get("arguments", {})
    if packaged:
        # Trained where strided convolutions pad below and on the right alone. With timm's own padding of this model the
        # cells of stride 8 and 16 look 7 and 13 pixels up and to the left of where they stand.
        arguments = {"pad_type": "same", "bn_eps": 1e-3}
        model = timm.create_model(name, **arguments)
        try:
            model.load_state_dict(map_by_position(tensors, model))
        except BackboneError as error:
            raise BackboneError(f"{where}: {error}") from None
    elif path:
        model = timm.create_model(name, num_classes=0, **taken.arguments(), **arguments)
        missing = load_weights(model, name, tensors, taken.canvas, where)
    else:
        model = _published(name, taken)
    model.eval().requires_grad_(False)
    model.prune_intermediate_layers(list(taken.places), prune_norm=False, prune_head=True)
    if lacking := sorted(missing & model.state_dict().keys()):
        raise BackboneError(f"{where}: {lacking[0]} and {len(lacking) - 1} more are not in it")
    data = timm.data.resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    mean, std = LITE0_MEAN_STD if packaged else (own.get("mean", data["mean"]), own.get("std", data["std"]))
    return model, {"arguments": arguments, "mean": list(mean), "std": list(std)}, data["interpolation"]


def _published(name: str, taken: Layout) -> TimmModel:
    """The model with the hub's weights."""
    timm = import_timm()
    published = timm.get_pretrained_cfg(name)
    require_hub(name, published.hf_hub_id, published.url)
    try:
        try:
            return timm.create_model(name, pretrained=True, num_classes=0, **taken.arguments())
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
        # Tables of positions that timm does not resize: at the size that they were trained at, then ours.
        trained = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise BackboneError(f"the hub's weights of {name} cannot be had ({str(error).splitlines()[0]})") from None
    model = timm.create_model(name, num_classes=0, **taken.arguments())
    load_weights(model, name, trained, taken.canvas, f"what the hub has does not fit the backbone {name}")
    return model


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
