"""Features held in memory: rows become features, and nothing else of a batch does."""

from __future__ import annotations

import numpy as np
import torch

from cluster.resident import ROWS, Resident
from idc.places import prepare


def test_only_what_names_features_becomes_features() -> None:
    """`label_rows` of a prepared batch is no row of the table."""
    table = Resident(torch.device("cpu"))
    arrays = np.random.default_rng(0).random((3, 2, 4), np.float32).astype(np.float16)
    rows = table.rows("photos", 3, lambda i: {"photo": arrays[i]}, lambda i, error: None)
    batch = {"photo" + ROWS: torch.tensor([rows[i]["photo" + ROWS] for i in (2, 0)]), "present": torch.eye(2)}
    batch = prepare("labels", batch)
    found = table.take(batch)
    assert found.keys() == {"photo", "present", "label_rows", "counts"}
    assert (found["photo"].numpy() == arrays[[2, 0]]).all() and found["label_rows"].tolist() == [0, 1]
