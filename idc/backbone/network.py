"""The network of a backbone as a torch module: from uint8 images of its canvas to grid features, frozen or trained.

Its modules stay in evaluation mode while it is trained: batch norms keep the mean and variance that they came with
(their scale and bias are trained), and nothing is dropped out. Batches of tens of pairs would give other statistics
than those that the weights were trained with, and each rank its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from idc.backbone.layout import Layout, TimmModel, layout
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import BackboneError

# Images put through at once. On CPU the activations of 16 images stay in the cache: 560 images/s on one core, against
# 310 for 64 images and 230 for 128 (efficientnet_lite0, 160 x 128, bf16).
CPU_CHUNK, GPU_CHUNK = 16, 256
IMAGES = ("before", "after", "photo")


class GridNetwork(nn.Module):
    """A timm model, cut off after the last level that is taken, with the folding of its levels into one grid."""

    scale: Tensor  # (3 * width,) of the normalisation, for a row of pixels
    shift: Tensor

    def __init__(self, name: str, net: TimmModel, taken: Layout, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.name, self.taken, self.trained = name, taken, "none"
        self.net = net.eval().requires_grad_(False)
        # Engines hook into the forward pass of a module, and gather there what it owns itself, such as position tables.
        self.net.forward = functools.partial(taken.levels, self.net)
        # Tiled to a row of pixels: arithmetic over a last axis of 3 would take as long as a quarter of the network.
        scale, shift = 1 / (255 * torch.tensor(std)), -torch.tensor(mean) / torch.tensor(std)
        for field, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(field, values.repeat(taken.canvas[1]), persistent=False)

    def train(self, mode: bool = True) -> GridNetwork:
        """Leaves the modules in evaluation mode, whatever is asked for."""
        return cast(GridNetwork, super().train(False))

    # ---- what is trained

    def train_parts(self, choice: str) -> None:
        """Says what is trained: "none", "all", or "last:N", the N last layers as timm counts them.

        BackboneError where the model has fewer, or timm does not know its layers.
        """
        first = 0 if choice == "all" else None
        if number := last_layers(choice):
            count = 1 + max(self.layers().values())
            if number > count:
                raise BackboneError(f"{choice}: the backbone {self.name} has {count} layers")
            first = count - number
        layers = self.layers() if first else {}
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(first is not None and layers.get(name, first) >= first)
        self.trained = choice

    def layers(self) -> dict[str, int]:
        """The layer of each parameter by its name, from the pixels on; BackboneError where timm does not know it."""
        from timm.models import group_parameters

        if not hasattr(self.net, "group_matcher"):
            raise BackboneError(f"timm does not know the layers of {self.name}; train all of it, or another backbone")
        return group_parameters(self.net, self.net.group_matcher(coarse=False), reverse=True)

    def depths(self) -> dict[str, int]:
        """Of each trained parameter how many layers come after its own, by name."""
        layers = self.layers()
        last = max(layers.values())
        return {name: last - layers.get(name, last) for name, p in self.net.named_parameters() if p.requires_grad}

    def not_decayed(self) -> set[str]:
        """Names of the parameters that weight decay should leave alone, as the model has it; biases and norms aside."""
        return set(self.net.no_weight_decay()) if hasattr(self.net, "no_weight_decay") else set()

    def save_memory(self) -> None:
        """From now on activations inside of layers are computed again in the backward pass and not kept.

        BackboneError where timm has no such thing for the model.
        """
        try:
            self.net.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise BackboneError(f"timm cannot checkpoint the activations of {self.name}") from None

    # ---- what it computes

    @property
    def chunk(self) -> int:
        """Images put through at once on this device."""
        return CPU_CHUNK if self.scale.device.type == "cpu" else GPU_CHUNK

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) of the canvas' size -> features (B, N, F) float32; without gradient if it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained != "none"):
            parts = [self.fold(self.net(self.normalise(part))).float() for part in pixels.split(self.chunk)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def seen(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch with features (B, N, F) in place of its images (B, H, W, 3)."""
        roles = [role for role in IMAGES if role in batch]
        features = self(torch.cat([batch[role] for role in roles]))
        return {**batch, **dict(zip(roles, features.chunk(len(roles)), strict=True))}

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> normalised (B, 3, H, W), channels last in memory, which is twice as fast on CPUs."""
        rows = pixels.to(self.scale.device).flatten(2).float()
        normal = torch.addcmul(self.shift, rows, self.scale).to(self.dtype)
        return normal.view(pixels.shape).permute(0, 3, 1, 2)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.net.parameters()).dtype

    def fold(self, levels: list[Tensor]) -> Tensor:
        """Levels (B, C_s, h * k, w * k), k = last stride / s -> (B, h * w, sum of k * k * C_s).

        Of a folded level, a cell has its k * k fine cells row by row, each with its channels side by side.
        """
        rows, columns = self.taken.grid
        folded = [
            level.unflatten(2, (rows, -1)).unflatten(4, (columns, -1)).permute(0, 2, 4, 3, 5, 1).flatten(3)
            for level in levels
        ]
        return torch.cat(folded, dim=-1).flatten(1, 2)


def untrained(
    name: str, size: tuple[int, int], strides: tuple[int, ...] = (), train: str = "none", checkpointing: bool = False
) -> GridNetwork:
    """A network of random weights on torch's default device, such as meta: to count and to time.

    BackboneError where timm has no such model, or the model no such levels or layers.
    """
    taken = layout(name, tuple(size), tuple(strides))
    net = import_timm().create_model(name, num_classes=0, **taken.arguments())
    net.prune_intermediate_layers(list(taken.places), prune_norm=False, prune_head=True)
    network = GridNetwork(name, net, taken, (0.5,) * 3, (0.5,) * 3)
    network.train_parts(train)
    if checkpointing:
        network.save_memory()
    return network


def last_layers(choice: str) -> int:
    """N of "last:N"; 0 for "none" and "all". BackboneError for anything else."""
    found = re.fullmatch(r"none|all|last:([1-9]\d*)", choice)
    if found is None:
        raise BackboneError(f"{choice!r} is not none, all or last:N, such as last:2 for the last two layers")
    return int(found[1] or 0)
