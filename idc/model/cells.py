"""Maps of cells: what a model sees of an image before anything is learnt, and which cells of two belong together.

Features come in one level (a vision transformer) or in two, the finer folded into the coarser. Channels are
standardised, each by its own mean and deviation over training images: channels of a backbone differ in scale by far,
and a layer norm over them would keep that. Positions and distances are in steps, `STEPS` to the longer side of the
canvas, so that nothing depends on how many cells a backbone makes.

Shapes: B images, h x w cells of the features, rows x columns fine cells (h x w, or 2h x 2w of two levels), M of them,
C = C_fine + C_coarse channels, P peaks, G pooled cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ModelConfig
from idc.model.layers import upcast, without_autocast

STEPS = 40.0  # to the longer side
REACH = 2.0  # steps that the camera may move things by, from one image of a pair to the other
CONTRAST = 4  # power of novelty: most cells of a pair differ a little
VIEWS = ("same place", "near", "anywhere")


@dataclass(frozen=True)
class Counterparts:
    """Of n cells of B images, the cells of the other image that belong to them in each of the VIEWS."""

    features: Tensor  # (B, n, views, C)
    similarity: Tensor  # (B, n, views) cosine
    shift: Tensor  # (B, n, views, 2) x, y in steps, from the cell to its counterpart


class CellMap(nn.Module):
    """Features (B, N, F) -> standardised maps of fine cells; with gradient if the features have one."""

    mean: Tensor  # (C,)
    deviation: Tensor  # (C,)
    pool_rows: Tensor  # (pooled rows, rows)
    pool_columns: Tensor  # (pooled columns, columns)
    owner: Tensor  # (M,) the pooled cell that each cell lies in
    place: Tensor  # (M, 2) x, y of each cell in steps
    pooled_place: Tensor  # (G, 2)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid, self.fold = config.grid, 2 if config.fine_channels else 1
        self.fine = config.fine_channels or config.feature_dim
        self.coarse = config.feature_dim - self.fold**2 * self.fine
        self.channels, self.width = self.fine + self.coarse, 2 * self.fine + self.coarse
        self.rows, self.columns = (self.fold * side for side in config.grid)
        self.step = STEPS / max(self.rows, self.columns)  # steps of one cell
        self.reach = max(1, round(REACH / self.step))  # in cells
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("deviation", torch.ones(self.channels))
        sides = pooled_sides(config)
        for name, side, of in (("pool_rows", sides[0], self.rows), ("pool_columns", sides[1], self.columns)):
            self.register_buffer(name, pool_matrix(side, of), persistent=False)
        row, column = (
            ((torch.arange(of) + 0.5) * side / of).long()
            for side, of in zip(sides, (self.rows, self.columns), strict=True)
        )
        self.register_buffer("owner", (row[:, None] * sides[1] + column).flatten(), persistent=False)
        self.register_buffer("place", places(self.rows, self.columns, self.step), persistent=False)
        pooled = places(*sides, 1.0) * torch.tensor([self.columns / sides[1], self.rows / sides[0]]) * self.step
        self.register_buffer("pooled_place", pooled, persistent=False)
        self.pooled_step = self.step * max(self.rows / sides[0], self.columns / sides[1])  # steps of a pooled cell

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Sets mean and deviation of the channels to those of features (n, N, F) of training images."""
        fine, coarse = features.float().split([self.fold**2 * self.fine, self.coarse], dim=-1)
        levels = [fine.reshape(-1, self.fine)] + ([coarse.flatten(0, -2)] if self.coarse else [])
        self.mean.copy_(torch.cat([level.mean(0) for level in levels]))
        self.deviation.copy_(torch.cat([level.std(0) for level in levels]).clamp_min(1e-3))

    def forward(self, features: Tensor, blank: Tensor | None = None) -> Tensor:
        """(B, N, F) -> (B, rows, columns, 2 * C_fine + C_coarse): of each fine cell its own fine features, their mean
        over 3 x 3 cells, and the coarse features there, interpolated. blank: bool (B, rows, columns), fine cells whose
        features are taken out, that is, replaced by the mean."""
        (height, width), batch, fold = self.grid, features.shape[0], self.fold
        mean, deviation = (
            torch.cat([values[: self.fine].repeat(fold**2), values[self.fine :]])
            for values in (self.mean, self.deviation)
        )
        features = (features.to(mean.dtype) - mean) / deviation
        fine, coarse = features.split([fold**2 * self.fine, self.coarse], dim=-1)
        # Channels stay last in memory: three times as fast on a CPU as channels first.
        fine = fine.reshape(batch, height, width, fold, fold, self.fine).transpose(2, 3)
        fine = fine.reshape(batch, self.rows, self.columns, self.fine)
        if blank is not None:
            fine = fine.masked_fill(blank[..., None], 0.0)
            over = functional.max_pool2d(blank[:, None].to(fine.dtype), fold, stride=fold)  # (B, 1, h, w)
            coarse = coarse.masked_fill(over.flatten(1)[..., None] > 0, 0.0)
        around = functional.avg_pool2d(fine.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        parts = [fine, around.permute(0, 2, 3, 1)]
        if self.coarse:
            coarse = coarse.reshape(batch, height, width, self.coarse).permute(0, 3, 1, 2)
            coarse = functional.interpolate(coarse, scale_factor=fold, mode="bilinear", align_corners=False)
            parts.append(coarse.permute(0, 2, 3, 1))
        return torch.cat(parts, dim=-1)

    def seen(self, cells: Tensor) -> Tensor:
        """Of maps or single cells (..., 2 * C_fine + C_coarse) the backbone's own features (..., C)."""
        return torch.cat([cells[..., : self.fine], cells[..., 2 * self.fine :]], dim=-1)

    def signs(self, cells: Tensor) -> Tensor:
        """All cells of a map (B, n, 2 * C_fine + C_coarse) -> (B, n, C), rows of length 1: what their surroundings are
        told by, beside the rest of the image."""
        around = upcast(cells[..., self.fine :])
        return functional.normalize(around - around.mean(1, keepdim=True), dim=-1)

    def pooled(self, maps: Tensor) -> Tensor:
        """Maps (B, rows, columns, c) -> means (B, G, c) over a coarse grid."""
        rows = self.pool_rows.to(maps.dtype) @ maps.flatten(2)  # (B, pooled rows, columns * c)
        return (self.pool_columns.to(maps.dtype) @ rows.unflatten(2, (self.columns, -1))).flatten(1, 2)

    def novelty(self, signs: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Signs (B, M, C) of two images -> how new each cell is beside the other image, (B, M) both, 0 to 1.

        1 - the best cosine within reach of its place; divided by the largest of the pair, to the power CONTRAST.
        """
        shape = (self.rows, self.columns)
        alike = best_within(signs.unflatten(1, shape), other.unflatten(1, shape), self.reach)
        new = [(1 - each).flatten(1).clamp_min(0) for each in alike]
        most = torch.cat(new, dim=1).amax(1, keepdim=True).clamp_min(1e-6)
        return (new[0] / most).pow(CONTRAST), (new[1] / most).pow(CONTRAST)


def pooled_sides(config: ModelConfig) -> tuple[int, int]:
    """Rows and columns of the pooled grid: about `config.pooled` squared cells in the shape of the canvas."""
    (height, width), fold = config.grid, 2 if config.fine_channels else 1
    stretch = (height / width) ** 0.5
    sides = ((config.pooled * stretch, fold * height), (config.pooled / stretch, fold * width))
    rows, columns = (min(max(round(side), 1), most) for side, most in sides)
    return rows, columns


def places(rows: int, columns: int, step: float) -> Tensor:
    """(rows * columns, 2): x, y of the middle of each cell."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1) * step


def pool_matrix(side: int, of: int) -> Tensor:
    """(side, of): each row the shares of `of` cells in one of `side` equal lengths."""
    edges, cells = torch.arange(side + 1) * of / side, torch.arange(of)
    overlap = torch.minimum(edges[1:, None], cells + 1.0) - torch.maximum(edges[:-1, None], cells.float())
    return overlap.clamp_min(0) * side / of


def best_within(image: Tensor, other: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Rows of length 1 (B, h, w, C) of two images -> of each cell of either the best cosine within `reach` cells of its
    place in the other, (B, h, w) both.

    Whole rows of cells are compared, and most of it thrown away: products of matrices take a fifth of the time of
    shifted maps, and both directions share them. Rows of nothing between the images keep these apart.
    """
    batch, height, width = image.shape[:3]
    one, two = (functional.pad(rows, (0, 0, 0, 0, reach, reach)).flatten(0, 1) for rows in (image, other))
    row, column = torch.arange(height + 2 * reach, device=image.device), torch.arange(width, device=image.device)
    there = ((row >= reach) & (row < height + reach)).repeat(batch)[:, None, None]
    far = (column[:, None] - column).abs() > reach
    lines = one.shape[0]  # no len(): of an unknown batch it is no number
    best = one.new_full((2, lines, width), -1.0)
    for down in range(-reach, reach + 1):
        ours, theirs = (slice(max(0, sign * down), lines + min(0, sign * down)) for sign in (-1, 1))
        with without_autocast(image):
            cosine = one[ours] @ two[theirs].transpose(1, 2)  # (rows of all images, w, w)
        cosine = cosine.masked_fill(far | ~(there[ours] & there[theirs]), -1.0)
        best[0, ours] = torch.maximum(best[0, ours], cosine.amax(2))
        best[1, theirs] = torch.maximum(best[1, theirs], cosine.amax(1))
    found = best.unflatten(1, (batch, -1))[:, :, reach : reach + height]
    return found[0], found[1]


def counterparts(
    signs: Tensor, place: Tensor, others: Tensor, other_place: Tensor, features: Tensor, near: float
) -> Counterparts:
    """Of n cells the best of m in the other image: at the same place, at most `near` steps off along x and y, anywhere.

    signs (B, n, C), others (B, m, C): rows of length 1. place (B or 1, n, 2), other_place (m, 2), in steps. features
    (B, m, C'): what is wanted of those that are found.
    """
    with without_autocast(signs):
        cosine = signs @ others.transpose(1, 2)  # (B, n, m)
    x, y = (place[:, :, None] - other_place).abs().unbind(-1)
    apart = torch.maximum(x, y)  # (B or 1, n, m)
    same = (-apart).argmax(-1, keepdim=True).expand(signs.shape[0], -1, -1)
    close = cosine.masked_fill(apart > near, -2.0).argmax(-1, keepdim=True)
    found = torch.cat([same, close, cosine.argmax(-1, keepdim=True)], dim=-1)  # (B, n, views)
    flat = found.flatten(1)[..., None]
    picked = features.gather(1, flat.expand(-1, -1, features.shape[-1])).unflatten(1, found.shape[1:])
    return Counterparts(picked, cosine.gather(2, found), other_place[found] - place[:, :, None])


def joined(parts: Sequence[Counterparts]) -> Counterparts:
    """Counterparts of several sorts of cells of the same images as one."""
    return Counterparts(
        *(torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(Counterparts))
    )
