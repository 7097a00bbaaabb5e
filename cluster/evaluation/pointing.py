"""Whether captions look where the change is: their maps against the pixels of the changed object, where known.

A map goes with a prediction as {"shape": [2, rows, columns], "values": base64 of bytes, 255 = the most}.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idc.backbone.canvas import Canvas
from shards.errors import DataError
from shards.images import masks

# Of a pair's maps, the share of their maximum from which a place counts and is outlined. One for all data sets and
# models: the best of many on the scored pairs would be chosen by the answers.
THRESHOLD = 0.3
THRESHOLD_IS = "a fixed share of the maximum of a pair's maps, not chosen on the scored pairs"


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
    of the places from THRESHOLD on with the object's pixels, both images together, mean over pairs. None with a reason
    where no pixels are known.
    """
    hits, ious = [], []
    for prediction in predictions:
        pixels, where = (prediction.get("truth") or {}).get("pixels"), unpack_map(prediction)
        if pixels is None or where is None:
            continue
        height, width = pixels["size"]
        truth = np.stack([masks.decode(pixels[role], height, width) for role in ("before", "after")])
        drawn = np.stack([canvas.on_image(side, height, width) for side in where])
        hits.append(bool(truth[np.unravel_index(drawn.argmax(), drawn.shape)]))
        above = drawn >= THRESHOLD * drawn.max()
        ious.append((above & truth).sum() / (above | truth).sum())
    if not hits:
        reason = "the pixels of the change are not known"
        return {"pointing_game": None, "iou": None, "threshold": None, "n": 0, "reason": reason}
    return {
        "pointing_game": 100 * sum(hits) / len(hits),
        "iou": 100 * float(np.mean(ious)),
        "threshold": THRESHOLD,
        "threshold_is": THRESHOLD_IS,
        "n": len(hits),
    }
