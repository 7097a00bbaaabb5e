"""What a model knows of its own knowledge: how unlike its training pairs a pair is, and how sure "changed" is.

Unfamiliarity: a model describes a pair in a few numbers (`Trunk.profile`). The distance is the mean of their absolute
standard scores over training pairs; divided by the distance that 1 in 100 validation pairs exceeds, 1 is the limit.
P(changed): the head's log-odds divided by a temperature that minimises the cross-entropy of validation pairs (Guo et
al., ICML 2017), with Platt's targets (1999), so that a split without errors does not make it certain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SHARE = 0.01  # of validation pairs that are called unfamiliar
FEWEST = 20  # validation pairs, changed and unchanged each, that a temperature is fitted on
MOST_LOG = 4.0  # of the temperature, up and down
EPS = 1e-7


@dataclass(frozen=True)
class Calibration:
    """Of one trained model. k numbers describe a pair."""

    mean: tuple[float, ...]  # (k,) over training pairs
    deviation: tuple[float, ...]  # (k,)
    limit: float  # the distance that SHARE of the validation pairs exceeds
    temperature: float | None  # None: too few validation pairs of which it is known whether they changed
    pairs: Mapping[str, int]  # that these were found on: "train", "val", "labelled"

    def unfamiliarity(self, profiles: Tensor) -> Tensor:
        """(B, k) -> (B,) float32: how unlike the training pairs each is; above 1 is unfamiliar."""
        return distance(profiles, torch.tensor(self.mean), torch.tensor(self.deviation)) / self.limit

    def probability(self, changed: Tensor) -> Tensor:
        """(B,) probabilities of a change by the head -> calibrated ones."""
        return changed if self.temperature is None else (changed.logit(EPS) / self.temperature).sigmoid()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`; ValueError, TypeError or KeyError where it is none."""
        mean, deviation = (tuple(float(value) for value in values[name]) for name in ("mean", "deviation"))
        limit, temperature = float(values["limit"]), values["temperature"]
        if len(mean) != len(deviation) or not limit > 0 or not (temperature is None or temperature > 0):
            raise ValueError("not the calibration of a model")
        return cls(mean, deviation, limit, temperature, dict(values["pairs"]))


class Moments:
    """Mean and deviation of profiles that come in parts."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._square = torch.zeros((), dtype=torch.float64)

    def add(self, profiles: Tensor) -> None:
        """(n, k)."""
        values = profiles.double().cpu()
        self.count += len(values)
        self._sum = self._sum + values.sum(0)
        self._square = self._square + values.square().sum(0)

    @property
    def mean(self) -> Tensor:
        """(k,)."""
        return self._sum / self.count

    @property
    def deviation(self) -> Tensor:
        """(k,), above 0."""
        return (self._square / self.count - self.mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)


def distance(profiles: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(B, k), (k,), (k,) -> (B,): the mean of the absolute standard scores."""
    return ((profiles.float().cpu() - mean) / deviation).abs().mean(1).float()


def calibrated(train: Moments, val: Tensor, changed: Tensor, labels: Sequence[bool | None]) -> Calibration:
    """From the profiles of training pairs, those of n validation pairs (n, k), the head's P(changed) of these (n,) and
    whether they changed, None = not known. ValueError: no pairs."""
    if not train.count or not len(val):
        raise ValueError("a calibration needs training and validation pairs")
    far = distance(val, train.mean.float(), train.deviation.float())
    known = [place for place, label in enumerate(labels) if label is not None]
    really = torch.tensor([bool(labels[place]) for place in known], dtype=torch.bool)  # also if there are none
    temperature = fit_temperature(changed[known], really)
    return Calibration(
        tuple(train.mean.tolist()), tuple(train.deviation.tolist()),
        max(float(far.quantile(1 - SHARE)), EPS), temperature,
        {"train": train.count, "val": len(val), "labelled": len(known)},
    )  # fmt: skip


def fit_temperature(changed: Tensor, labels: Tensor) -> float | None:
    """P(changed) (n,) and bool labels (n,) -> the temperature; None for fewer than FEWEST pairs of either kind."""
    positive, negative = int(labels.sum()), int((~labels).sum())
    if min(positive, negative) < FEWEST:
        return None
    logits = changed.double().cpu().logit(EPS)
    targets = torch.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2)).double()

    def cost(log: float) -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits / math.exp(log), targets))

    low, high = -MOST_LOG, MOST_LOG  # the cost has one valley: it is convex in 1 / temperature
    while high - low > 1e-4:
        third = (high - low) / 3
        low, high = (low, high - third) if cost(low + third) < cost(high - third) else (low + third, high)
    return math.exp((low + high) / 2)
