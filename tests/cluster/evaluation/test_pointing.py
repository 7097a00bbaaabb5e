"""The map of a caption against the pixels of the change."""

import numpy as np
import pytest

from cluster.evaluation.pointing import THRESHOLD, pack_map, unpack_map, where_scores
from idc.backbone.canvas import Canvas
from shards.errors import DataError
from shards.images import masks

CANVAS = Canvas((40, 60), (40, 60))


def prediction(where: np.ndarray, **shown: np.ndarray) -> dict:
    pixels = {"size": [40, 60], **{role: masks.encode(mask) for role, mask in shown.items()}}
    return {"key": "k", "map": pack_map(where), "truth": {"type": "color", "pixels": pixels}}


def thing() -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 20:30] = True
    return mask


def test_a_map_of_the_change_itself_is_perfect_and_one_of_the_other_image_is_not():
    nothing = np.zeros((40, 60), bool)
    right = np.stack([nothing, thing()]).astype(np.float32)
    scores = where_scores([prediction(right, before=nothing, after=thing())], CANVAS)
    assert scores["pointing_game"] == 100 and scores["iou"] == pytest.approx(100) and scores["n"] == 1
    scores = where_scores([prediction(right[::-1], before=nothing, after=thing())], CANVAS)
    assert scores["pointing_game"] == 0 and scores["iou"] == 0


def test_iou_is_of_a_fixed_threshold_whatever_the_scored_pairs_would_like():
    wide = np.zeros((40, 60), np.float32)
    wide[10:20, 20:40] = 0.4  # twice as wide as the thing ...
    wide[10:20, 20:30] = 1.0  # ... and strongest on it
    both = np.stack([wide, wide])
    scores = where_scores([prediction(both, before=thing(), after=thing())], CANVAS)
    assert scores["iou"] == pytest.approx(50) and scores["threshold"] == THRESHOLD < 0.4
    assert "not chosen on the scored pairs" in scores["threshold_is"]
    wide[10:20, 30:40] = 0.5 * THRESHOLD  # below it
    scores = where_scores([prediction(np.stack([wide, wide]), before=thing(), after=thing())], CANVAS)
    assert scores["iou"] == pytest.approx(100) and scores["threshold"] == THRESHOLD


def test_pairs_without_pixels_do_not_count():
    where = np.ones((2, 4, 6), np.float32)
    unchanged = {"key": "k", "map": pack_map(where), "truth": {"type": "none"}}
    scores = where_scores([unchanged, {"key": "k", "map": pack_map(where), "truth": None}], CANVAS)
    assert scores["pointing_game"] is None and "not known" in scores["reason"]


def test_maps_are_packed_as_bytes():
    where = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    found = unpack_map({"map": pack_map(where)})
    np.testing.assert_allclose(found, where / where.max(), atol=0.5 / 255 + 1e-6)
    assert unpack_map({}) is None
    with pytest.raises(DataError, match="prediction k: its map cannot be read"):
        unpack_map({"key": "k", "map": {"shape": [2, 3, 4], "values": "AAAA"}})
