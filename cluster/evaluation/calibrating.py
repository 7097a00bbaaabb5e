"""Calibrates a trained model on its training and validation pairs; how well calibrated its predictions are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.batches.samples import Samples
from cluster.distributed import beat
from cluster.evaluation.scores import change_of
from cluster.images.loaders import Loaders
from idc.captioning.calibration import Calibration, Moments, calibrated
from idc.model.trunk import Trunk
from shards.errors import DataError, Unreachable
from shards.reading.reader import Folder

TRAIN_PAIRS, VAL_PAIRS = 512, 1024  # looked at, spread over their splits; 812 pairs of `blocks` take a CPU core 23 s
CHUNK = 16  # pairs
BINS = 10  # of the reliability diagram

Place = tuple[str | Path, Path | None]  # of a folder of pairs and of its features; None: the backbone is live
Sees = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def calibrate(
    model: Trunk,
    trained_on: Sequence[Place],
    device: torch.device | str,
    loaders: Loaders | None = None,
    seen: Sees | None = None,
    told: Callable[[int, int], object] = lambda done, count: None,
) -> Calibration | None:
    """Of a model on `device`; trained_on: the folder with the validation pairs first. None: no validation pairs.

    loaders, seen: of a live backbone, what decodes images and what makes features of them. told: how many of how many
    pairs were looked at.
    Pairs that cannot be read are left out. Memory does not grow with the folders.
    """
    shards, features = trained_on[0]
    parts = [(place, "train", max(TRAIN_PAIRS // len(trained_on), 1)) for place in trained_on]
    parts.append(((shards, features), "val", VAL_PAIRS))
    counts = [min(limit, _pairs(place[0], split)) for place, split, limit in parts]
    if not counts[-1]:
        return None
    train, val, done = Moments(), [], 0
    for (place, split, limit), count in zip(parts, counts, strict=True):
        for number, one in enumerate(_seen(model, place, split, limit, device, loaders, seen), start=1):
            if split == "train":
                train.add(one[0])
            else:
                val.append(one)
            told(done + min(number * CHUNK, count), sum(counts))
        done += count
    told(done, done)  # also if the last pairs could not be read
    if not train.count or not val:
        return None
    profiles, changed, labels = zip(*val, strict=True)
    return calibrated(train, torch.cat(profiles), torch.cat(changed), [label for part in labels for label in part])


def _pairs(shards: str | Path, split: str) -> int:
    return Folder.open(shards).manifest["splits"].get(split, {}).get("pair", 0)


@torch.no_grad()
def _seen(
    model: Trunk,
    place: Place,
    split: str,
    limit: int,
    device: torch.device | str,
    loaders: Loaders | None,
    seen: Sees | None,
) -> Iterator[tuple[Tensor, Tensor, list[bool | None]]]:
    """Profiles (n, k), P(changed) (n,) and labels of at most `limit` pairs of a split, a chunk at a time."""
    samples = Samples(*place, "pair", split, loaders=loaders)
    places = np.linspace(0, len(samples) - 1, min(max(limit, 1), len(samples))).astype(int).tolist()
    for start in range(0, len(places), CHUNK):
        found: list[tuple[dict[str, Tensor], bool | None]] = []
        for i in places[start : start + CHUNK]:
            try:
                found.append((dict(samples.arrays([i])), change_of(_as_prediction(samples.record(i)))))
            except Unreachable:
                raise
            except DataError as error:
                samples.condemn(i, error)
        if not found:
            continue
        images: Mapping[str, Tensor]
        images = {role: torch.cat([arrays[role] for arrays, _ in found]).to(device) for role in ("before", "after")}
        images = {role: each.to(model.dtype) for role, each in (seen(images) if seen else images).items()}
        state, logits = model.start_captions(images, 2)
        changed = logits.float().softmax(-1)[:, 1]
        yield model.profile(images, state.pair).cpu(), changed.cpu(), [label for _, label in found]
        beat.went_on()


def _as_prediction(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "references": record["captions"]}


def reliability(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The object "calibration" of scores.json: whether P(changed) is what happens, and how many pairs are unfamiliar.

    {"n", "ece", "bins": [{"from", "to", "n", "probability", "changed"}], "unfamiliar", "n_unfamiliar"}: ece is the
    expected calibration error over BINS bins of equal width; a bin has the mean of its probabilities and the share that
    changed. unfamiliar: percent of all pairs. What is of no pairs is None, and "reasons" says why.
    """
    labelled = [
        (float(pair["changed_probability"]), changed)
        for pair in predictions
        if "changed_probability" in pair and (changed := change_of(pair)) is not None
    ]
    places: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability, changed in labelled:
        places[min(int(probability * BINS), BINS - 1)].append((probability, changed))
    bins = [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "n": len(inside),
            "probability": sum(p for p, _ in inside) / len(inside) if inside else None,
            "changed": sum(c for _, c in inside) / len(inside) if inside else None,
        }
        for number, inside in enumerate(places)
    ]
    wrong = sum(abs(sum(p for p, _ in inside) - sum(c for _, c in inside)) for inside in places)
    far = [pair["unfamiliarity"] > 1 for pair in predictions if pair.get("unfamiliarity") is not None]
    reasons = {} if labelled else {"ece": "of no pair is it known whether it changed"}
    reasons |= {} if far else {"unfamiliar": "the model was exported without a calibration: export it again"}
    return {
        "n": len(labelled),
        "ece": wrong / len(labelled) if labelled else None,
        "bins": bins,
        "n_unfamiliar": len(far),
        "unfamiliar": 100 * sum(far) / len(far) if far else None,
        **({"reasons": reasons} if reasons else {}),
    }
