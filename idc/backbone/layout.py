"""Which levels of a timm model become features, and what grid and channels these have: known without its weights.

A pyramid (most convolutional models, Swin, Hiera, PVT, MaxViT) has a level a stride. A plain model (a vision
transformer) has the same grid of patches after each of its blocks: there, several strides are several of its layers,
spread evenly over its depth with the last one last, and a multiple of the patch is the mean over that many patches.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from idc.backbone.timm_import import import_timm
from idc.backbone.weights import BackboneError

STRIDES = (8, 16)  # taken where none are named and a model has both
SMALLEST = 16  # pixels
TimmModel = Any  # a torch module with methods of timm's own: prune_intermediate_layers, forward_intermediates


@dataclass(frozen=True)
class Layout:
    """The levels of a model that are taken, finest first, on canvases of one size."""

    strides: tuple[int, ...]  # pixels between the cells of each level
    places: tuple[int, ...]  # of each among the levels that the model has
    pools: tuple[int, ...]  # patches along each side that are averaged into a cell of each
    channels: tuple[int, ...]  # of each
    canvas: tuple[int, int]  # height, width in pixels
    plain: bool  # one grid after every block
    fixed: bool  # the model is built for one size of its input

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells: those of the last level."""
        return self.canvas[0] // self.strides[-1], self.canvas[1] // self.strides[-1]

    @property
    def dim(self) -> int:
        """F, the channels of a cell, in which the cells of finer levels lie side by side."""
        coarse = self.strides[-1]
        return sum(count * (coarse // stride) ** 2 for count, stride in zip(self.channels, self.strides, strict=True))

    def arguments(self) -> dict[str, Any]:
        """What timm's create_model has to be told of the canvas."""
        return {"img_size": self.canvas} if self.fixed else {}

    def levels(self, model: TimmModel, pixels: Tensor) -> list[Tensor]:
        """Normalised pixels (B, 3, H, W) -> the levels (B, C, rows, columns), as the model gives them."""
        levels = model.forward_intermediates(
            pixels, indices=list(self.places), norm=self.plain, stop_early=True, output_fmt="NCHW",
            intermediates_only=True,
        )  # fmt: skip
        pooled = zip(levels, self.pools, strict=True)
        return [functional.avg_pool2d(level, pool) if pool > 1 else level for level, pool in pooled]


@lru_cache(maxsize=8)
def layout(name: str, size: tuple[int, int], strides: tuple[int, ...] = ()) -> Layout:
    """The layout of a timm model for images that are fitted into `size` (height, width).

    strides: one or more, each a multiple of the one before; () takes 8 and 16 where the model has both, else its last
    level. The canvas is `size` with its sides rounded up to whole cells, or as far as the model needs: to whole
    windows, to a square.
    BackboneError where timm has no such model, or the model no such levels, or it does not take such images.
    """
    timm = import_timm()
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise BackboneError(
            f"timm has no model {name!r}" + (f"; did you mean {near[0]}?" if near else "; see timm.list_models()")
        )
    if min(size) < SMALLEST:
        raise BackboneError(f"size is {size}; height and width must be {SMALLEST} pixels or more")
    model = _empty(name)
    if not hasattr(model, "forward_intermediates"):
        raise BackboneError(f"timm's {name} does not give its inner levels; choose another backbone")
    reductions = [level["reduction"] for level in model.feature_info]
    plain, fixed = len(set(reductions)) == 1 < len(reductions), bool(model.pretrained_cfg.get("fixed_input_size"))
    chosen = _choose(name, reductions, strides)
    unit = chosen[0][-1]
    refused = ""
    # A model whose windows are shares of the image takes whole ones alone, and some take squares alone.
    whole = math.lcm(unit, reductions[-1])
    for canvas in dict.fromkeys((_rounded(size, unit), _rounded(size, whole), _rounded((max(size),) * 2, whole))):
        found = Layout(*chosen, (), canvas, plain, fixed)
        try:
            shapes = _shapes(name, model, found)
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
            refused = refused or " ".join(str(error).split())[:120] or type(error).__name__
            continue
        wanted = [(canvas[0] // stride, canvas[1] // stride) for stride in found.strides]
        if [tuple(shape[2:]) for shape in shapes] != wanted:
            cells = " and ".join(f"{shape[2]} x {shape[3]}" for shape in shapes)
            refused = refused or f"it gives {cells} cells at strides {list(found.strides)}"
            continue
        return Layout(*chosen, tuple(shape[1] for shape in shapes), canvas, plain, fixed)
    raise BackboneError(
        f"the backbone {name} does not take images of {size[0]} x {size[1]} pixels ({refused}); choose another size or "
        "backbone"
    )


def _choose(
    name: str, reductions: Sequence[int], strides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(strides, their places among the model's levels, patches averaged along each side)."""
    own = sorted(set(reductions))
    if not strides:
        strides = STRIDES if set(STRIDES) <= set(own) and len(own) > 1 else (reductions[-1],)
    if min(strides) < 1 or any(coarse % fine for fine, coarse in zip(strides, strides[1:], strict=False)):
        raise BackboneError(f"strides are {_show(strides)}; each must be a multiple of the one before")
    if len(own) == 1:
        count, depth, patch = len(strides), len(reductions), own[0]
        if any(stride % patch for stride in strides) or count > depth:
            raise BackboneError(
                f"the backbone {name} has {depth} layers of stride {patch} and no strides {_show(strides)}: name "
                f"multiples of {patch}, such as {patch} or {_show((patch, 2 * patch))}"
            )
        places = tuple(round((number + 1) * depth / count) - 1 for number in range(count))
        return strides, places, tuple(stride // patch for stride in strides)
    last = {reduction: place for place, reduction in enumerate(reductions)}
    if not set(strides) <= set(own) or len(set(strides)) < len(strides):
        raise BackboneError(
            f"the backbone {name} has no strides {_show(strides)}: name one or more of {_show(own)}, each once"
        )
    return strides, tuple(last[stride] for stride in strides), (1,) * len(strides)


def _rounded(size: tuple[int, ...], unit: int) -> tuple[int, int]:
    height, width = (-(-side // unit) * unit for side in size)
    return height, width


def _empty(name: str, arguments: dict[str, Any] | None = None, device: str = "meta") -> TimmModel:
    """The model without its weights."""
    try:
        with torch.device(device):
            return import_timm().create_model(name, pretrained=False, **(arguments or {})).eval()
    except RuntimeError as error:
        raise BackboneError(f"timm cannot build {name!r} ({str(error).splitlines()[0]})") from None


@torch.inference_mode()
def _shapes(name: str, model: TimmModel, found: Layout) -> list[torch.Size]:
    """The shape of each level: models disagree with what they declare (prefix tokens, sizes)."""
    for device in ("meta", "cpu"):
        if found.fixed or device == "cpu":
            model = _empty(name, found.arguments(), device)
        try:
            levels = found.levels(model, torch.zeros(1, 3, *found.canvas, device=device))
        except RuntimeError:
            # An operator that looks at values, or has no kernel for tensors without any, or a size that does not fit:
            # real values tell.
            if device == "meta":
                continue
            raise
        return [level.shape for level in levels]
    raise BackboneError(f"timm's {name} cannot be run here; choose another backbone")


def _show(strides: Sequence[int]) -> str:
    return ",".join(map(str, strides))
