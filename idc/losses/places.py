"""Places of scored words and hidden cells in a batch: found once, on the CPU, where the batch is made.

On a GPU each of these questions ("which words are scored?") would make the host wait for the device in the middle of a
step. With the places at hand a step is indexing and masks alone, and its shapes do not depend on values.

Batches of uneven size are evened out by rows that repeat a sample; `real` (B,) bool is False for them. They pass
through the network and count for nothing: their words, cells and classes are marked as not scored.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from idc.model.config import NOT_SCORED


def group_size(batch_size: int, group: int) -> int:
    """The samples of one contrastive group. Raises ValueError where the batch is not made of whole groups."""
    if group and batch_size % group:
        raise ValueError(f"a batch of {batch_size} cannot be cut into groups of contrastive_group = {group} samples")
    return group or batch_size


def only_real(values: Tensor, real: Tensor | None, otherwise: int | bool) -> Tensor:
    """`values` (B, ...) with `otherwise` in the rows that are not real."""
    if real is None:
        return values
    return torch.where(real.view(-1, *[1] * (values.dim() - 1)), values, torch.full((), otherwise, dtype=values.dtype))


def scored_words(found: dict[str, Tensor], labels: Tensor, real: Tensor | None, multiple: int) -> float:
    """Adds the places and labels of the scored words, labels (B, ..., L); returns how many there are."""
    labels = only_real(labels, real, NOT_SCORED).flatten()
    places = (labels != NOT_SCORED).nonzero().flatten()
    room = rounded(len(places), multiple) - len(places)
    found["word_places"] = functional.pad(places, (0, room))
    found["word_labels"] = functional.pad(labels[places], (0, room), value=NOT_SCORED)
    return float(len(places))


def hidden_cells(mask: Tensor, group: int, room: int, multiple: int) -> tuple[Tensor, Tensor]:
    """visual_mask (B, 2T) -> hidden_places and hidden_known, (groups, P) both."""
    cells = mask.shape[1]
    size = group_size(len(mask), group)
    groups = mask.view(-1, size * cells)
    number = groups.sum(dim=1)
    room = max(rounded(max(room, int(number.max())), multiple), 1)
    places = torch.zeros(len(groups), room, dtype=torch.int64)
    known = torch.arange(room) < number[:, None]
    inside = groups.nonzero()
    places[known] = inside[:, 0] * size * cells + inside[:, 1]
    return places, known


def rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
