"""Whether captions look where the change is: their maps against the pixels of the changed object, where known.

A map goes with a prediction as {"shape": [2, rows, columns], "values": base64 of bytes, 255 = the most}.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idc.canvas import Canvas
from shards import pixel_runs
from shards.errors import DataError

THRESHOLDS = np.geomspace(0.01, 0.95, 24)


def pack_map(where: np.ndarray) -> dict[str, Any]:
    """(2, rows, columns), 0 or more -> what predictions.jsonl holds; scaled so that the most is 255."""
    scaled = np.round(255 * where / max(float(where.max()), 1e-9)).astype(np.uint8)
    return {"shape": list(scaled.shape), "values": base64.b64encode(scaled.tobytes()).decode()}


def unpack_map(prediction: Mapping[str, Any]) -> np.ndarray | None:
    """(2, rows, columns) float32, 0 to 1; None where the prediction has no map. DataError where it is not one."""
    packed = prediction.get("map")
    if packed is None:
        return None
    try:
        values = np.frombuffer(base64.b64decode(packed["values"], validate=True), np.uint8)
        return values.reshape(packed["shape"]).astype(np.float32) / 255
    except (ValueError, TypeError, KeyError):
        raise DataError(f"prediction {prediction.get('key')}: its map cannot be read; run --stage evaluate") from None


def where_scores(predictions: Sequence[Mapping[str, Any]], canvas: Canvas) -> dict[str, Any]:
    """How well the maps of changed pairs show the changed object, in percent.

    pointing_game: the strongest pixel of the two maps lies on the object (in that image). iou: intersection over union
    of the places above a threshold with the object's pixels, both images together, mean over pairs; the threshold is
    the one of THRESHOLDS that gives most. None with a reason where no pixels are known.
    """
    hits, ious = [], []
    for prediction in predictions:
        pixels, where = (prediction.get("truth") or {}).get("pixels"), unpack_map(prediction)
        if pixels is None or where is None:
            continue
        height, width = pixels["size"]
        truth = np.stack([pixel_runs.decode(pixels[role], height, width) for role in ("before", "after")])
        drawn = np.stack([canvas.on_image(side, height, width) for side in where])
        hits.append(bool(truth[np.unravel_index(drawn.argmax(), drawn.shape)]))
        above = drawn >= THRESHOLDS[:, None, None, None] * drawn.max()
        ious.append((above & truth).sum((1, 2, 3)) / (above | truth).sum((1, 2, 3)))
    if not hits:
        reason = "the pixels of the change are not known"
        return {"pointing_game": None, "iou": None, "threshold": None, "n": 0, "reason": reason}
    mean = np.mean(ious, axis=0)
    best = int(mean.argmax())
    return {
        "pointing_game": 100 * sum(hits) / len(hits),
        "iou": 100 * float(mean[best]),
        "threshold": float(THRESHOLDS[best]),
        "n": len(hits),
    }
