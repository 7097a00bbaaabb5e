"""Features held in memory: rows become features, and nothing else of a batch does."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.batches.batches import Batches
from cluster.batches.resident import ROWS, Resident, choose
from idc.captioning import tokenizer as tokenizers
from idc.losses.objectives import prepare
from shards.reading.reader import Folder


def test_only_what_names_features_becomes_features() -> None:
    """`label_rows` of a prepared batch is no row of the table."""
    table = Resident(torch.device("cpu"))
    arrays = np.random.default_rng(0).random((3, 2, 4), np.float32).astype(np.float16)
    rows = table.rows("photos", 3, lambda i: {"photo": arrays[i]}, lambda i, error: None)
    batch = {"photo" + ROWS: torch.tensor([rows[i]["photo" + ROWS] for i in (2, 0)]), "present": torch.eye(2)}
    batch = prepare("labels", batch)
    found = table.take(batch)
    assert found.keys() == {"photo", "present", "label_rows", "label_weights", "counts"}
    assert (found["photo"].numpy() == arrays[[2, 0]]).all() and found["label_rows"].tolist() == [0, 1]


def test_a_damaged_sample_is_replaced_whether_features_are_on_disk_or_in_memory(tiny: Any, tmp_path: Path) -> None:
    copied = tmp_path / "features"
    shutil.copytree(tiny.features, copied)
    stream = Folder.open(copied).stream("pair", "train")
    tar, offset = copied / "pairs-train-000000.tar", int(stream._rows[0][1])
    data = bytearray(tar.read_bytes())
    data[offset + 200] ^= 1
    tar.write_bytes(data)
    stage = dataclasses.replace(tiny.config.stage("pretrain"), steps=12, ratios={"mlm": 1.0})
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    resident = choose("cpu", torch.device("cpu"), [Folder.open(copied)])
    found = []
    for each in (None, resident, resident):  # the second stage that uses the memory knows it too
        batches = Batches(tiny.shards, copied, tokenizer, tiny.config.model, 12, stage, 5, 0, 1, resident=each)
        found.append({bad.key for step in range(12) for bad in batches.step(step).bad})
    assert found[0] == found[1] == found[2] == {stream.keys[0]}
