"""Checkpoints that are nothing but their COMMIT, and files of weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from cluster.training.checkpoint import COMMIT, Commit


def commit(folder: Path, step: int, **validation: float | None) -> Path:
    made = folder / f"step_{step:08d}"
    made.mkdir(parents=True)
    (made / COMMIT).write_text(json.dumps(asdict(Commit("finetune", step, 2, 1, validation or None))))
    return made


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """A safetensors file. Tied parameters share memory, which the format cannot say: each name gets its own copy."""
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, path)
