"""Regions: a few tokens an image, each one object-like thing, found by classifying every cell of the feature grid.

Image labels alone (the class of a photo, classes named in its captions) teach every cell what it shows: a cell holds a
distribution over the classes and "nothing", an image has a class when any of its cells has it (noisy-or, as in multiple
instance learning), so the classifier has to find the cells that the label is about. The peaks of "something is here"
are the regions. Where the classes are words ("attributes") a cell holds "something" and, given that, each word alone.

What is said of a pair is about what changed: what it does not mention may be there all the same. So its labels are held
against the cells that have no like at their place in the other image, each as far as it is new (`novelty`).

Shapes: B images, N coarse cells (h x w), F = 4 * C_fine + C_coarse channels, M = 4N fine cells (2h x 2w), C classes,
T regions, D = cell_size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.config import ConfigError, ModelConfig
from idc.model.layers import upcast

# Of the "nothing" logit: hundreds of cells start out empty, or the noisy-or saturates. Words do not share one whole.
BACKGROUND_BIAS, ATTRIBUTES_BIAS = 8.0, 4.0
REACH = 2  # fine cells that the camera may move things by, from one image of a pair to the other
CONTRAST = 4  # power of novelty: most cells of a pair differ a little
# Images whose cells are searched at a time: arrays past a CPU's caches make a training step a fifth longer.
SEARCHED = 16
FAR = -1e4  # a logit that never wins, finite so that softmax over nothing but these stays finite


@dataclass(frozen=True)
class Regions:
    """The regions of B images, strongest first."""

    hidden: Tensor  # (B, T, D) what the cells there hold
    classes: Tensor  # (B, T, C) probabilities; of kinds, the rest to 1 is "nothing"
    position: Tensor  # (B, T, 2) x, y in fine cells, float32, between cell centres
    score: Tensor  # (B, T) logit of "something is here", float32
    features: Tensor  # (B, T, C_fine + C_coarse) the backbone's features there, no gradient

    def chunk(self) -> tuple[Regions, Regions]:
        """The first and the second half of the images."""
        halves = [getattr(self, name).chunk(2) for name in ("hidden", "classes", "position", "score", "features")]
        return Regions(*(half[0] for half in halves)), Regions(*(half[1] for half in halves))


def require_room(config: ModelConfig) -> None:
    """ConfigError where a grid of features has no room for so many regions: the grid is known when features are."""
    rows, columns = config.grid
    if config.regions > 4 * rows * columns:
        raise ConfigError(
            f"regions is {config.regions}; a grid of {rows} x {columns} cells has at most {4 * rows * columns}"
        )


class RegionFinder(nn.Module):
    """Grid features of two strides -> hidden state and class logits of every fine cell -> regions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        require_room(config)
        self.fine = config.fine_channels
        self.coarse = config.feature_dim - 4 * config.fine_channels
        size = config.cell_size
        self.input_norm = nn.LayerNorm(2 * self.fine + self.coarse)
        self.projection = nn.Linear(2 * self.fine + self.coarse, size)
        self.mix = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)
        self.class_head = nn.Linear(size, config.classes + 1)
        nn.init.normal_(self.class_head.weight, std=0.02)
        nn.init.zeros_(self.class_head.bias)
        with torch.no_grad():
            self.class_head.bias[-1] = ATTRIBUTES_BIAS if config.attributes else BACKGROUND_BIAS

    def inputs(self, features: Tensor) -> Tensor:
        """(B, N, F) -> what each fine cell is judged by (B, M, 2 * C_fine + C_coarse), without gradient: its own fine
        features, their mean over 3 x 3 cells, and the coarse features there, interpolated."""
        (height, width), batch = self.config.grid, len(features)
        with torch.no_grad():
            features = features.to(self.mix.weight.dtype)
            fine, coarse = features.split([4 * self.fine, self.coarse], dim=-1)
            # Channels stay last in memory: three times as fast on a CPU as channels first.
            fine = fine.reshape(batch, height, width, 2, 2, self.fine).transpose(2, 3)
            fine = fine.reshape(batch, 2 * height, 2 * width, self.fine)
            around = functional.avg_pool2d(fine.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
            coarse = coarse.reshape(batch, height, width, self.coarse).permute(0, 3, 1, 2)
            coarse = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
            parts = [fine, around.permute(0, 2, 3, 1), coarse.permute(0, 2, 3, 1)]
            return torch.cat(parts, dim=-1).flatten(1, 2)

    def cells(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, m, ...) of any cells -> hidden (B, m, D), class logits (B, m, C + 1), "nothing" last."""
        hidden = functional.gelu(self.projection(self.input_norm(inputs)))
        hidden = self.norm(hidden + functional.gelu(self.mix(hidden)))
        return hidden, self.class_head(hidden)

    def shown(self, features: Tensor) -> Tensor:
        """(B, N, F) -> probabilities (B, M, C) of the classes in all fine cells."""
        return self.probabilities(self.cells(self.inputs(features))[1])

    def shown_in_pair(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, F) twice -> probabilities (B, 2M, C) in the cells of both, and how new each is, (B, 2M) up to 1."""
        inputs = self.inputs(before), self.inputs(after)
        shown = torch.cat([self.probabilities(self.cells(each)[1]) for each in inputs], dim=1)
        with torch.no_grad():
            seen = [self._around(each) for each in inputs]
            new = torch.cat([novelty(seen[0], seen[1], REACH), novelty(seen[1], seen[0], REACH)], dim=1).flatten(1)
            return shown, (new / new.amax(1, keepdim=True).clamp_min(1e-6)).pow(CONTRAST)

    def _around(self, inputs: Tensor) -> Tensor:
        """Inputs (B, M, ...) -> what sets a cell's surroundings apart in its image: (B, 2h, 2w, C_fine + C_coarse)."""
        around = upcast(inputs[..., self.fine :])
        around = functional.layer_norm(around, around.shape[-1:])
        return (around - around.mean(1, keepdim=True)).unflatten(1, [2 * side for side in self.config.grid])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class logits (..., C + 1) -> (..., C), float32 or better."""
        logits = upcast(logits)
        if self.config.attributes:
            return logits[..., :-1].sigmoid() * (-logits[..., -1:]).sigmoid()
        return logits.softmax(-1)[..., :-1]

    def something(self, logits: Tensor) -> Tensor:
        """Class logits (..., C + 1) -> the logit (...) of "something is here"."""
        logits = upcast(logits)
        return -logits[..., -1] if self.config.attributes else logits[..., :-1].logsumexp(-1) - logits[..., -1]

    def forward(self, features: Tensor) -> Regions:
        """(B, N, F) -> the T strongest peaks; a region is the neighbourhood of 3 x 3 fine cells, weighted by score.

        Peaks are found without gradient; hidden states are computed again, with it, for their neighbourhoods alone.
        """
        found = [self._peaks(some) for some in features.split(SEARCHED)]
        inputs, rows, columns, inside = (torch.cat(parts) for parts in zip(*found, strict=True))
        hidden, logits = self.cells(inputs)
        hidden, logits = hidden.unflatten(1, (-1, 9)), upcast(logits).unflatten(1, (-1, 9))
        weight = self.something(logits).masked_fill(~inside, FAR).softmax(-1)[..., None]  # (B, T, 9, 1)
        local = (logits * weight).sum(2)  # (B, T, C + 1)
        with torch.no_grad():
            seen = (upcast(inputs).unflatten(1, (-1, 9)) * weight).sum(2)
            seen = torch.cat([seen[..., : self.fine], seen[..., 2 * self.fine :]], dim=-1)
        return Regions(
            hidden=(hidden * weight.to(hidden.dtype)).sum(2),
            classes=self.probabilities(local),
            position=torch.stack([(columns * weight[..., 0]).sum(-1), (rows * weight[..., 0]).sum(-1)], dim=-1),
            score=self.something(local),
            features=seen,
        )

    @torch.no_grad()
    def _peaks(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, N, F) -> of the cells around the T strongest peaks: inputs (B, T * 9, ...), and (B, T, 9) each their
        rows, columns, and whether they are inside the image (those that are not have a neighbour's inputs)."""
        inputs, batch = self.inputs(features), len(features)
        height, width = 2 * self.config.grid[0], 2 * self.config.grid[1]
        field = self.something(self.cells(inputs)[1]).view(batch, 1, height, width)
        peaks = field.masked_fill(field < functional.max_pool2d(field, 3, stride=1, padding=1), FAR)
        found = peaks.flatten(1).topk(self.config.regions, dim=1).indices  # (B, T)
        row, column = found // width, found % width
        step = torch.arange(-1, 2, device=found.device)
        rows = row[..., None] + step.repeat_interleave(3)
        columns = column[..., None] + step.repeat(3)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        near = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)  # (B, T * 9)
        image = torch.arange(batch, device=found.device)[:, None]
        return inputs[image, near], rows, columns, inside


def novelty(image: Tensor, other: Tensor, reach: int) -> Tensor:
    """Cells (B, h, w, C) of two images -> (B, h * w): 1 - the best cosine within `reach` cells of its place."""
    image, other = functional.normalize(image, dim=-1), functional.normalize(other, dim=-1)
    (height, width), steps = image.shape[1:3], range(2 * reach + 1)
    other = functional.pad(other, (0, 0, reach, reach, reach, reach))
    like = [(image * other[:, y : y + height, x : x + width]).sum(-1) for y in steps for x in steps]
    return 1 - torch.stack(like).amax(0).flatten(1)


def image_labels_loss(shown: Tensor, present: Tensor, weight: Tensor | None = None) -> Tensor:
    """Noisy-or: probabilities (B, M, C) in every cell, present (B, C) 0 or 1 -> the loss (B,), summed over classes.

    P(class in the image) = 1 - prod over cells of (1 - weight * P(class in the cell)), weights (B, M) at most 1;
    binary cross-entropy against `present`.
    """
    if weight is not None:
        shown = shown * weight[..., None]
    log_absent = torch.log1p(-shown.clamp(max=1 - 1e-6)).sum(1).clamp(max=-1e-7)  # (B, C)
    log_present = torch.log(-torch.expm1(log_absent))
    return -torch.where(present.bool(), log_present, log_absent).sum(-1)
