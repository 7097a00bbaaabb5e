"""Regions: a few tokens an image, each one object-like thing, found by classifying every cell of the feature grid.

Image labels alone (the class of a photo, classes named in its captions) teach every cell what it shows: a cell holds a
distribution over the classes and "nothing", an image has a class when any of its cells has it (noisy-or, as in multiple
instance learning), so the classifier has to find the cells that the label is about. The peaks of "something is here"
are regions. Where the classes are words ("attributes") a cell holds "something" and, given that, each word alone.

The peaks of novelty are regions too: cells that have no like at their place in the other image (`CellMap.novelty`).
What is said of a pair is about what changed: what it does not mention may be there all the same. So its labels are held
against its regions, each as far as it is new.

Shapes: B images, N cells of the features, M fine cells, C classes, T regions, G pooled cells, D = cell_size, c channels
of the backbone, and of what a fine cell is judged by (`idc.model.cells`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from idc.model.cells import CellMap, Counterparts, counterparts, joined
from idc.model.config import ConfigError, ModelConfig
from idc.model.layers import upcast

# Of the "nothing" logit: hundreds of cells start out empty, or the noisy-or saturates. Words do not share one whole.
BACKGROUND_BIAS, ATTRIBUTES_BIAS = 8.0, 4.0
# Images whose cells are searched at a time: arrays past a CPU's caches make a training step a fifth longer.
SEARCHED = 16
FAR = -1e4  # a logit that never wins, finite so that softmax over nothing but these stays finite


@dataclass(frozen=True)
class Regions:
    """The regions of B images: those of something, strongest first, then those of novelty."""

    hidden: Tensor  # (B, T, D) what the cells there hold
    classes: Tensor  # (B, T, C) probabilities; of kinds, the rest to 1 is "nothing"
    position: Tensor  # (B, T, 2) x, y in steps, float32, between cell centres
    score: Tensor  # (B, T) logit of "something is here", float32
    features: Tensor  # (B, T, c) the backbone's features there, standardised, no gradient

    def swapped(self) -> Regions:
        """The second half of the images, then the first: what each is held against."""
        return Regions(*(swapped(getattr(self, field.name)) for field in fields(self)))


@dataclass(frozen=True)
class Seen:
    """What there is to see in B images: all before and then all after images, or photos.

    Without gradient, unless the features have one, as those of a backbone that is trained.
    """

    around: Tensor  # (B, T, 9, c) inputs of the 3 x 3 cells around each peak
    row: Tensor  # (B, T, 9) of these cells
    column: Tensor  # (B, T, 9)
    inside: Tensor  # (B, T, 9) whether they are inside the image; those that are not have a neighbour's inputs
    pooled: Tensor  # (B, G, c) the backbone's features, standardised, over a coarse grid
    overall: Tensor  # (B, 2 c) mean and deviation of each channel over the image
    novelty: Tensor  # (B, T) how new each peak is beside the other image, 0 to 1; photos: 1
    counterparts: Counterparts | None  # in the other image, of the T peaks, then of the G pooled cells; photos: none


def require_room(config: ModelConfig) -> None:
    """ConfigError where a grid of features has no room for so many regions: the grid is known when features are."""
    (rows, columns), fold = config.grid, 2 if config.fine_channels else 1
    if config.regions + config.novelties > fold**2 * rows * columns:
        raise ConfigError(
            f"regions and novelties are {config.regions} and {config.novelties}; "
            f"a grid of {rows} x {columns} cells has at most {fold**2 * rows * columns} of both"
        )


class RegionFinder(nn.Module):
    """Features -> hidden state and class logits of every fine cell -> regions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        require_room(config)
        self.map = CellMap(config)
        size = config.cell_size
        self.projection = nn.Linear(self.map.width, size)
        self.mix = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)
        self.class_head = nn.Linear(size, config.classes + 1)
        nn.init.normal_(self.class_head.weight, std=0.02)
        nn.init.zeros_(self.class_head.bias)
        with torch.no_grad():
            self.class_head.bias[-1] = ATTRIBUTES_BIAS if config.attributes else BACKGROUND_BIAS

    def cells(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, ..., c) of any cells -> hidden (B, ..., D), class logits (B, ..., C + 1), "nothing" last."""
        hidden = functional.gelu(self.projection(inputs))
        hidden = self.norm(hidden + functional.gelu(self.mix(hidden)))
        return hidden, self.class_head(hidden)

    def shown(self, features: Tensor) -> Tensor:
        """(B, N, F) -> probabilities (B, M, C) of the classes in all fine cells."""
        return self.probabilities(self.cells(self.map(features).flatten(1, 2))[1])

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

    def forward(self, seen: Seen) -> Regions:
        """A region is the neighbourhood of 3 x 3 fine cells around a peak, weighted by score."""
        hidden, logits = self.cells(seen.around)
        logits = upcast(logits)
        weight = self.something(logits).masked_fill(~seen.inside, FAR).softmax(-1)[..., None]  # (B, T, 9, 1)
        local = (logits * weight).sum(2)  # (B, T, C + 1)
        with torch.no_grad():
            features = self.map.seen((upcast(seen.around) * weight).sum(2))
        place = torch.stack([seen.column, seen.row], dim=-1) + 0.5
        return Regions(
            hidden=(hidden * weight.to(hidden.dtype)).sum(2),
            classes=self.probabilities(local),
            position=(place * weight).sum(2) * self.map.step,
            score=self.something(local),
            features=features,
        )

    def look(self, images: Sequence[Tensor], hidden: Tensor | None = None) -> Seen:
        """One or two images (B, N, F) -> where their peaks are and what is there.

        hidden: bool (B, images * (T + G)): tokens whose cells are blanked before anything but the places of the peaks
        is taken from the maps, the first image's first.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and images[0].requires_grad):
            return self._looked(images, hidden)

    def _looked(self, images: Sequence[Tensor], hidden: Tensor | None) -> Seen:
        sides = len(images)
        size = SEARCHED // sides
        # A graph of any batch has no loop over it.
        if images[0].device.type != "cpu" or torch.compiler.is_exporting() or len(images[0]) <= size:
            return self._look_at(images, hidden, slice(None))
        parts = [self._look_at(images, hidden, slice(at, at + size)) for at in range(0, len(images[0]), size)]
        return _together(parts, sides)

    def _look_at(self, images: Sequence[Tensor], hidden: Tensor | None, some: slice) -> Seen:
        """`look` at some of the batch at once."""
        blank = None if hidden is None else torch.cat(hidden[some].chunk(len(images), dim=1))
        # Autocast would refuse to join float16, as features come.
        features = torch.cat([each[some].to(self.map.mean.dtype) for each in images])
        return self._look(features, len(images), blank)

    def _look(self, features: Tensor, sides: int, hidden: Tensor | None) -> Seen:
        """Features (sides * B, N, F), the first side first; hidden (sides * B, T + G)."""
        maps = self.map(features)
        signs = self.map.signs(maps.flatten(1, 2))
        with torch.no_grad():  # which cells are peaks is no smooth question
            new = torch.cat(self.map.novelty(*signs.chunk(2))) if sides > 1 else None
            spots = self._spots(maps, new)
        if hidden is not None:
            maps = self.map(features, self._blank(spots, hidden))
            signs = self.map.signs(maps.flatten(1, 2))
        flat, pooled, partners = maps.flatten(1, 2), self.map.pooled(maps), None
        if sides > 1:
            own = signs.gather(1, spots[..., None].expand(-1, -1, signs.shape[-1]))
            far, place = self.map.reach * self.map.step + 1e-3, self.map.place
            of_peaks = counterparts(own, place[spots], swapped(signs), place, swapped(flat), far)
            own, far, place = self.map.signs(pooled), self.map.pooled_step + 1e-3, self.map.pooled_place
            of_pooled = counterparts(own, place[None], swapped(own), place, swapped(pooled), far)
            partners = joined([of_peaks, of_pooled])
            partners = replace(partners, features=self.map.seen(partners.features))
        mean, square = self.map.seen(torch.stack([flat.mean(1), flat.square().mean(1)])).unbind(0)
        overall = torch.cat([mean, _root(square - mean.square())], dim=-1)
        fresh = torch.ones_like(spots, dtype=mean.dtype) if new is None else new.gather(1, spots)
        return Seen(*self._around(flat, spots), self.map.seen(pooled), overall, fresh, partners)

    def _spots(self, cells: Tensor, new: Tensor | None) -> Tensor:
        """Maps (B, rows, columns, c), how new each cell is (B, M) or None -> the cells (B, T) of the peaks."""
        shape, (something, novel) = cells.shape[1:3], (self.config.regions, self.config.novelties)
        if new is not None and not something:
            return _peaks(new.unflatten(1, shape), novel)
        field = self.something(self.cells(cells)[1])
        if new is None:
            return _peaks(field, something + novel)
        first = _peaks(field, something)
        taken = torch.zeros_like(new).scatter_(1, first, 1.0).unflatten(1, shape)
        taken = functional.max_pool2d(taken[:, None], 3, stride=1, padding=1)[:, 0]
        return torch.cat([first, _peaks(new.unflatten(1, shape).masked_fill(taken > 0, FAR), novel)], dim=1)

    def _around(self, flat: Tensor, spots: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the cells around the peaks: inputs (B, T, 9, c), rows, columns, whether they are inside."""
        row, column = spots // self.map.columns, spots % self.map.columns
        step = torch.arange(-1, 2, device=spots.device)
        rows, columns = row[..., None] + step.repeat_interleave(3), column[..., None] + step.repeat(3)
        inside = (rows >= 0) & (rows < self.map.rows) & (columns >= 0) & (columns < self.map.columns)
        near = rows.clamp(0, self.map.rows - 1) * self.map.columns + columns.clamp(0, self.map.columns - 1)
        image = torch.arange(flat.shape[0], device=spots.device)[:, None, None]
        return flat[image, near], rows, columns, inside

    def _blank(self, spots: Tensor, hidden: Tensor) -> Tensor:
        """Bool (B, rows, columns): the 3 x 3 cells of hidden peaks (spots (B, T)) and the cells of hidden pooled ones,
        by which of the tokens are hidden, (B, T + G)."""
        peaks, pooled = hidden.split([spots.shape[1], hidden.shape[1] - spots.shape[1]], dim=1)
        blank = torch.zeros(len(spots), self.map.rows * self.map.columns, device=spots.device)
        blank = blank.scatter_reduce(1, spots, peaks.to(blank.dtype), "amax")
        blank = blank.view(-1, 1, self.map.rows, self.map.columns)
        blank = functional.max_pool2d(blank, 3, stride=1, padding=1)[:, 0] > 0
        return blank | pooled[:, self.map.owner].view_as(blank)


def _peaks(field: Tensor, number: int) -> Tensor:
    """(B, rows, columns) -> the cells (B, number) of the strongest peaks; a peak is the highest of its 3 x 3 cells."""
    lower = field < functional.max_pool2d(field[:, None], 3, stride=1, padding=1)[:, 0]
    return field.masked_fill(lower, 2 * FAR).flatten(1).topk(number, dim=1).indices


def _root(x: Tensor) -> Tensor:
    """The square root, 0 for what is not above 0; there without gradient, for that of the root has no bound."""
    above = x > 0
    return torch.where(above, torch.where(above, x, 1.0).sqrt(), 0.0)


def swapped(sides: Tensor) -> Tensor:
    """(2B, ...) of two sides -> the second side first."""
    return torch.cat(sides.chunk(2)[::-1])


def _together(parts: Sequence[Seen], sides: int) -> Seen:
    """What is seen in several parts of a batch as one, all of the first side first."""
    if len(parts) == 1:
        return parts[0]

    def whole(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([half for side in zip(*(each.chunk(sides) for each in values), strict=True) for half in side])

    partners = [part.counterparts for part in parts if part.counterparts is not None]
    named = [field.name for field in fields(Seen) if field.name != "counterparts"]
    seen: dict[str, Any] = {name: whole([getattr(part, name) for part in parts]) for name in named}
    of_cells = [whole([getattr(each, field.name) for each in partners]) for field in fields(Counterparts) if partners]
    return Seen(**seen, counterparts=Counterparts(*of_cells) if partners else None)


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
