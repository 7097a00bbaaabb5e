"""Captions a split: every sample once, on any number of ranks; and the file predictions.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from cluster.pointing import pack_map
from cluster.samples import Samples
from idc.generate import generate
from idc.tokenizer import Tokenizer
from idc.trunk import Trunk
from idc.where import change_map
from shards.errors import DataError

# Fields of a sample's json that go with its prediction, where it has them: what scoring and the report need.
_COPIED = ("id", "changed", "change_type", "truth")


def predict(
    model: Trunk,
    samples: Samples,
    tokenizer: Tokenizer,
    *,
    rank: int = 0,
    world: int = 1,
    beam: int = 1,
    length_penalty: float = 0.0,
    batch_size: int = 32,
    limit: int = 0,
    device: torch.device | str = "cpu",
    maps: bool = False,
) -> list[dict]:
    """Captions of every world-th sample from `rank` on, of the first `limit` (0 = all).

    There is no communication in here, so ranks may have different numbers of samples; `merge` joins their lists.
    Each is {"index", "key", "caption", "log_probability", "changed_probability", "references", "id", "changed",
    "change_type", "truth"}: index is the place in the split; the last four as far as the sample has them. maps: also
    "map", what in the two images the caption is about (`cluster.pointing.pack_map`).
    """
    count = min(limit, len(samples)) if limit else len(samples)
    places = range(rank, count, world)
    predictions = []
    for start in range(0, len(places), batch_size):
        chunk = places[start : start + batch_size]
        images = {role: features.to(device) for role, features in samples.arrays(chunk).items()}
        made = generate(model, images, beam, length_penalty)
        where = change_map(model, images, made.tokens).cpu().numpy() if maps else [None] * len(chunk)
        rows = zip(
            chunk, made.tokens.tolist(), made.log_probability.tolist(), made.changed.tolist(), where, strict=True
        )  # fmt: skip
        for place, ids, log_probability, changed, shares in rows:
            record = samples.record(place)
            prediction = {
                "index": place,
                "key": samples.records.keys[place],
                "caption": tokenizer.decode(ids),
                "log_probability": round(log_probability, 4),
                "changed_probability": round(changed, 4),
                "references": record["captions"],
            }
            if shares is not None:
                prediction["map"] = pack_map(shares)
            predictions.append(prediction | {name: record[name] for name in _COPIED if name in record})
    return predictions


def merge(parts: Iterable[Sequence[dict]]) -> list[dict]:
    """The predictions of all ranks in the order of the split."""
    merged = sorted((prediction for part in parts for prediction in part), key=lambda prediction: prediction["index"])
    assert [prediction["index"] for prediction in merged] == list(range(len(merged))), "each sample once"
    return merged


def write_predictions(path: Path, predictions: Iterable[dict]) -> None:
    """One JSON object a line; whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
    os.replace(partial, path)


def read_predictions(path: Path) -> list[dict]:
    """The inverse of `write_predictions`; DataError naming the file and the line where it cannot be read."""
    predictions = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    prediction = json.loads(line)
                    predictions.append(prediction | {"caption": str(prediction["caption"])})
                except (ValueError, KeyError, TypeError):
                    raise DataError(f"{path}: line {number} is not a prediction; run --stage evaluate again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run --stage evaluate first") from None
    return predictions
