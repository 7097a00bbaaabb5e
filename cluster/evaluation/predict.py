"""Captions a split: every sample once, on any number of ranks; and the file predictions.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.batches.samples import Samples
from cluster.distributed import beat
from cluster.evaluation.pointing import pack_map
from idc.captioning.calibration import Calibration
from idc.captioning.decoding import generate
from idc.captioning.heat_map import change_map
from idc.captioning.precision import bf16
from idc.captioning.tokenizer import Tokenizer
from idc.model.trunk import Trunk
from shards.errors import DataError
from shards.format.whole_files import write_whole
from shards.reading.reader import Folder, Prefetcher

# Fields of a sample's json that go with its prediction, where it has them: what scoring and the report need.
COPIED = ("id", "changed", "change_type", "truth")


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
    precision: str = "fp32",
    calibration: Calibration | None = None,
    stop: Callable[[], object] = lambda: False,
    seen: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
    told: Callable[[int, int], object] = lambda done, count: None,
) -> list[dict]:
    """Captions of every world-th sample from `rank` on, of the first `limit` (0 = all).

    There is no communication in here, so ranks may have different numbers of samples; `merge` joins their lists.
    Each is {"index", "key", "caption", "log_probability", "changed_probability", "references", "id", "changed",
    "change_type", "truth"}: index is the place in the split; the last four as far as the sample has them. maps: also
    "map", what in the two images the caption is about (`cluster.evaluation.pointing.pack_map`). precision: of the
    captions' matrix products on a GPU; a CPU's, and those of the maps, are fp32. calibration: of the model; the
    changed_probability is then calibrated, and there is "unfamiliarity", above 1 for pairs unlike the training pairs.
    stop: looked at after every `batch_size` samples; once it is true, no more are captioned. seen: makes features of
    the images of samples that have none, those of a live backbone. told: how many of how many are captioned. DataError
    for a sample that cannot be read.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    count = min(limit, len(samples)) if limit else len(samples)
    stride = world * batch_size

    def read(first: int) -> tuple[range, list[dict], dict[str, Tensor]]:
        chunk = range(first, min(first + stride, count), world)
        arrays = samples.arrays(chunk)
        if device.type == "cuda":  # a thread starts out on the first GPU, whichever its process has
            with torch.cuda.device(device):
                arrays = {role: features.pin_memory() for role, features in arrays.items()}
        return chunk, [samples.record(place) for place in chunk], arrays

    predictions = []
    # While the model captions one chunk, a thread reads the next.
    with Prefetcher(read, range(rank, count, stride), threads=1, depth=2) as chunks:
        for chunk, records, arrays in chunks:
            images: Mapping[str, Tensor]
            images = {role: features.to(device, non_blocking=True) for role, features in arrays.items()}
            if seen is not None:
                with torch.no_grad():
                    images = seen(images)
            with bf16(model, device) if precision == "bf16" and device.type == "cuda" else nullcontext():
                made = generate(model, images, beam, length_penalty)
            where = change_map(model, images, made.tokens, made.pair).cpu().numpy() if maps else [None] * len(chunk)
            sentences, changed, far = made.tokens.tolist(), made.changed.cpu(), [None] * len(chunk)
            if calibration is not None:
                changed = calibration.probability(changed)
                far = calibration.unfamiliarity(model.profile(images, made.pair)).tolist()
            rows = zip(
                chunk, records, sentences, made.log_probability.tolist(), changed.tolist(), where, far, strict=True
            )
            for place, record, ids, log_probability, changed_probability, shares, unfamiliarity in rows:
                prediction = {
                    "index": place,
                    "key": samples.records.keys[place],
                    "caption": tokenizer.decode(ids),
                    "log_probability": round(log_probability, 4),
                    "changed_probability": round(changed_probability, 4),
                    "references": record["captions"],
                }
                if unfamiliarity is not None:
                    prediction["unfamiliarity"] = round(unfamiliarity, 3)
                if shares is not None:
                    prediction["map"] = pack_map(shares)
                predictions.append(prediction | {name: record[name] for name in COPIED if name in record})
            beat.went_on()
            told(min(chunk[0] - rank + stride, count), count)
            if stop():
                break
    return predictions


def merge(parts: Iterable[Sequence[dict]]) -> list[dict]:
    """The predictions of all ranks in the order of the split."""
    merged = sorted((prediction for part in parts for prediction in part), key=lambda prediction: prediction["index"])
    assert [prediction["index"] for prediction in merged] == list(range(len(merged))), "each sample once"
    return merged


def write_predictions(path: Path, predictions: Iterable[dict]) -> None:
    """One JSON object a line; whole or not at all."""
    write_whole(path, "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions))


def with_denials(predictions: Iterable[Mapping[str, Any]], shards: Folder) -> list[dict[str, Any]]:
    """The predictions with what reads their sentences, as packing found it.

    "denials": sentences that say "no change" in the language of the folder; "things": the names of its cut-outs.
    """
    learnt = frozenset(shards.manifest.get("denials", ()))
    things = frozenset(shards.manifest["options"].get("cutouts", ()))
    return [dict(prediction) | {"denials": learnt, "things": things} for prediction in predictions]


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
