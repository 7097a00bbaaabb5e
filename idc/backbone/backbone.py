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
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import (
    DEFAULT_BACKBONE,
    LITE0_MEAN_STD,
    BackboneError,
    is_lite0_package_format,
    load_weights,
    map_by_position,
    packaged_weights,
    read_weights,
    require_hub,
    tensors_sha256,
)

# Images put through at once. On CPU the activations of 16 images stay in the cache: 560 images/s on one core, against
# 310 for 64 images and 230 for 128 (efficientnet_lite0, 160 x 128, bf16).
CPU_CHUNK, GPU_CHUNK = 16, 256
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
RESIZE = "fit, "  # before the interpolation, in descriptions


class Backbone:
    """A frozen timm model from uint8 images to grid features.

    name: a timm model. weights: a local file (safetensors or torch zip); "" = the weights of an installed pip package
    if there is one, else those of timm's hub. size: (height, width) in pixels that images are fitted into, keeping
    their aspect; what is left is filled with the nearest edge pixels. Sides are rounded up to a whole grid.
    strides: levels taken, each a multiple of the one before; () = 8 and 16 where the model has both, else its last.
    precision: "bf16" or "fp32"; None = bf16 where the processor computes with it. interpolation: of the resizing, as
    Pillow names it; None = the model's own, of timm's data configuration, as mean and std are.
    Raises BackboneError, one line with the fix, where the model or the weights cannot be had.

    Attributes: grid (rows, columns), dim (F), channels of each level, weights_sha256 of the tensors in use.
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
        self._place = Canvas(self.size, self.canvas).place

        model, self.mean, self.std, own = _build(name, weights, self._layout)
        self.interpolation = interpolation or own
        self._resampling = Image.Resampling[self.interpolation.upper()]
        # Tiled to a row of pixels: arithmetic over a last axis of 3 would take as long as a quarter of the network.
        scale, shift = 1 / (255 * torch.tensor(self.std)), -torch.tensor(self.mean) / torch.tensor(self.std)
        self._scale, self._shift = (values.repeat(self.canvas[1]).to(self.device) for values in (scale, shift))

        self.weights_sha256 = tensors_sha256(model.state_dict())
        # The same weights give other features under another padding of strided convolutions.
        self.same_padding = any(type(module).__name__ == "Conv2dSame" for module in model.modules())
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
        top, left, height, width = self._place(*image.shape[:2])
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), self._resampling))
        if (height, width) == self.canvas:
            return image
        bottom, right = self.canvas[0] - top - height, self.canvas[1] - left - width
        return np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")

    def features(self, images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """B uint8 RGB images (H, W, 3), each of its own size -> float16 (B, N, F) in main memory."""
        chunks = [images[start : start + self.chunk] for start in range(0, len(images), self.chunk)] or [images]
        return torch.cat([self.features_of_canvases([self.prepare(np.asarray(i)) for i in chunk]) for chunk in chunks])

    @property
    def network(self) -> nn.Module:
        """The network that `of_pixels` runs."""
        return self._model

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Canvases uint8 (B, H, W, 3), as `prepare` makes them -> float16 (B, N, F): one pass, which can be traced."""
        return self._fold(self._layout.levels(self._model, self._normalise(pixels)))

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
        return self._layout.levels(model, pixels)

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


def _build(name: str, weights: str, taken: Layout) -> tuple[TimmModel, tuple[float, ...], tuple[float, ...], str]:
    """(timm model with weights, cut off after the last level that is taken; mean, std, interpolation)."""
    timm = import_timm()
    path, missing = weights or packaged_weights(name), set[str]()
    where = f"{path} does not fit the backbone {name}"
    tensors = read_weights(path) if path else {}
    packaged = is_lite0_package_format(tensors)
    if packaged:
        # Trained where strided convolutions pad below and on the right alone. With timm's own padding of this model the
        # cells of stride 8 and 16 look 7 and 13 pixels up and to the left of where they stand.
        model = timm.create_model(name, pad_type="same", bn_eps=1e-3)
        try:
            model.load_state_dict(map_by_position(tensors, model))
        except BackboneError as error:
            raise BackboneError(f"{where}: {error}") from None
    elif path:
        model = timm.create_model(name, num_classes=0, **taken.arguments())
        missing = load_weights(model, name, tensors, taken.canvas, where)
    else:
        model = _published(name, taken)
    model.eval().requires_grad_(False)
    model.prune_intermediate_layers(list(taken.places), prune_norm=False, prune_head=True)
    if lacking := sorted(missing & model.state_dict().keys()):
        raise BackboneError(f"{where}: {lacking[0]} and {len(lacking) - 1} more are not in it")
    data = timm.data.resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    mean, std = LITE0_MEAN_STD if packaged else (data["mean"], data["std"])
    return model, tuple(mean), tuple(std), data["interpolation"]


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
