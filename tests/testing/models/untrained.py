"""A run folder whose network has learnt nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from idc.backbone.backbone import Backbone
from idc.captioning import model_folder
from idc.captioning.calibration import Calibration
from idc.model.build import build
from idc.model.config import ModelConfig
from shards.packing.tokenizer import train_tokenizer


def untrained_run(folder: Path, limit: float | None = None) -> Path:
    """A run folder with the exported model of an untrained network over a real backbone.

    limit: of what is familiar, of a model that is calibrated so; None: it carries no calibration.
    """
    entry = train_tokenizer(["the red cube has disappeared", "there is no change"], folder, "words")
    backbone = Backbone(size=(48, 64))
    torch.manual_seed(0)
    sizes = {"max_length": 8, "d_model": 16, "heads": 2, "d_ff": 32, "cross_modal_blocks": 1}
    model = build(ModelConfig(vocab_size=entry["size"], feature_dim=backbone.dim, grid=backbone.grid, **sizes))
    numbers, seen = 2 * backbone.dim, {"train": 9, "val": 9, "labelled": 9}
    calibration = None if limit is None else Calibration((0.0,) * numbers, (1.0,) * numbers, limit, 2.0, seen)
    model_folder.save(
        folder / "model", model.config, model.state_dict(), folder / entry["file"], backbone.describe(),
        calibration=calibration,
    )  # fmt: skip
    return folder
