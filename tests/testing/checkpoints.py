"""Checkpoints that are nothing but their COMMIT."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cluster.training.checkpoint import COMMIT, Commit


def commit(folder: Path, step: int, **validation: float | None) -> Path:
    made = folder / f"step_{step:08d}"
    made.mkdir(parents=True)
    (made / COMMIT).write_text(json.dumps(asdict(Commit("finetune", step, 2, 1, validation or None))))
    return made
