"""Which regions of two images belong together, and what that says of each: equations 8 to 10 of docs/method.md.

Shapes: B pairs, T regions an image, n tokens, d = d_model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.cells import STEPS, VIEWS, Counterparts
from idc.model.config import ModelConfig
from idc.model.layers import without_autocast
from idc.model.regions import Regions

REGION_VIEWS = ("looks", "place", "both")


def code(position: Tensor, size: int, extent: float) -> Tensor:
    """(..., 2) x, y -> (..., size): sines and cosines of each coordinate, wavelengths 2 * extent to extent / 16."""
    octaves = torch.linspace(0, 5, size // 4, device=position.device)
    angle = position[..., None] * (math.pi / extent * 2.0**octaves)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def camera_motion(position: Tensor, target: Tensor, trust: Tensor, scale: float, prior: Tensor) -> Tensor:
    """Where the camera's motion alone takes each region: (B, T, 2) -> (B, T, 2), with gradient for the prior alone.

    An affine map fitted to the pairs (position, target), each weighed by its trust (B, T); pairs far from the fit,
    things that moved or were mistaken for others, lose weight (iteratively reweighted least squares, Cauchy weights).
    prior (6, 6): precision of the map's coefficients (1, x, y for x, then for y) where there is no evidence.
    """
    basis = torch.cat([torch.ones_like(position[..., :1]), (position - scale / 2) / scale], dim=-1)  # (B, T, 3)
    moved = target - position

    def fit(weight: Tensor, prior: Tensor) -> Tensor:
        weighted = (basis * weight[..., None]).transpose(1, 2)
        system = torch.kron(torch.eye(2, dtype=basis.dtype, device=basis.device), weighted @ basis) + prior
        evidence = (weighted @ moved).transpose(1, 2).flatten(1)  # (B, 6)
        return basis @ torch.linalg.solve_ex(system, evidence)[0].unflatten(1, (2, 3)).transpose(1, 2)

    with torch.no_grad():
        weight = trust
        for _ in range(5):
            weight = trust / (1 + (moved - fit(weight, prior)).square().sum(-1))
    return position + fit(weight, prior)


class Matching(nn.Module):
    """For every region of one image, its counterparts among the regions of the other."""

    GAIN = 10.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size = config.d_model
        # Log of how sharply looks and place decide, for the three views; learnt.
        self.log_sharpness = nn.Parameter(torch.tensor([[10.0, 0.02], [0.05, 1.0], [10.0, 0.3]]).log())
        # How cameras move, learnt too: a root of the prior of `camera_motion`, in units that suit the optimiser.
        self.camera = nn.Parameter(math.sqrt(0.03) / self.GAIN * torch.eye(6))
        self.expand = nn.Linear(len(REGION_VIEWS) * (3 * self.size + 3), config.d_ff)
        self.contract = nn.Linear(config.d_ff, self.size)

    def forward(self, looks: Tensor, regions: Regions, other_looks: Tensor, other: Regions) -> Tensor:
        """looks, other_looks (B, T, d) -> (B, T, d)."""
        # Distances of a fraction of a cell count: not in half precision.
        with without_autocast(looks):
            found = self._compare(looks.float(), regions, other_looks.float(), other)
        return self.contract(functional.gelu(self.expand(found.to(self.expand.weight.dtype))))

    def _compare(self, looks: Tensor, regions: Regions, other_looks: Tensor, other: Regions) -> Tensor:
        """What the views find, (B, T, views * (3 d + 3))."""
        similarity = functional.normalize(looks, dim=-1) @ functional.normalize(other_looks, dim=-1).transpose(1, 2)
        exists = functional.logsigmoid(other.score)[:, None]
        sharpness = self.log_sharpness.float().exp()
        expected = self.expected(similarity, exists, sharpness[0], regions, other)
        distance = (expected[:, :, None] - other.position[:, None]).square().sum(-1)
        by_looks, by_place = sharpness[:, :, None, None].unbind(1)  # (views, 1, 1)
        # All views at once from here on, (B, views, T, ...).
        similarity, distance, own = similarity[:, None], distance[:, None], looks[:, None]
        scores = by_looks * similarity - by_place * distance + exists[:, None]
        weight = scores.softmax(-1)
        counterpart = weight @ other_looks[:, None]
        moved = code(expected[:, None] - weight @ other.position[:, None], self.size, STEPS / 2)
        alike, apart = (weight * similarity).sum(-1), (weight * distance).sum(-1)
        quality = torch.stack([4 * alike, apart.log1p(), 0.2 * scores.logsumexp(-1)], dim=-1)
        found = torch.cat([counterpart - own, counterpart * own, moved, quality], dim=-1)
        return found.transpose(1, 2).flatten(2)

    def expected(
        self, similarity: Tensor, exists: Tensor, sharpness: Tensor, regions: Regions, other: Regions
    ) -> Tensor:
        """Where each region would be in the other image if nothing but the camera had moved, (B, T, 2)."""
        with torch.no_grad():
            distance = (regions.position[:, :, None] - other.position[:, None]).square().sum(-1)
            weight = (sharpness[0] * similarity - sharpness[1] * distance + exists).softmax(-1)
            trust = weight.square().sum(-1) * regions.score.sigmoid()
            target, position = weight @ other.position, regions.position.detach()
        root = self.GAIN * self.camera.float()
        prior = root @ root.T + 1e-3 * torch.eye(len(root), device=root.device)  # never singular
        return camera_motion(position, target, trust, STEPS, prior)


class Comparison(nn.Module):
    """What a token's counterparts among the cells of the other image say: how they differ, where, how alike."""

    SHIFT = 32  # numbers that say where

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(len(VIEWS) * (2 * config.d_model + self.SHIFT + 1), config.d_model)
        self.contract = nn.Linear(config.d_model, config.d_model)

    def forward(self, own: Tensor, found: Tensor, counterparts: Counterparts) -> Tensor:
        """own (B, n, d), found (B, n, views, d), both projections of cells -> (B, n, d)."""
        own = own[:, :, None]
        where = code(counterparts.shift, self.SHIFT, STEPS / 2)
        told = [found - own, found * own, where.to(own.dtype), 4 * counterparts.similarity[..., None].to(own.dtype)]
        return self.contract(functional.gelu(self.expand(torch.cat(told, dim=-1).flatten(2))))
