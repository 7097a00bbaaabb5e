"""The curves of a run by stage and name, as metrics.jsonl has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Points = list[tuple[float, float]]


class Curves(NamedTuple):
    """Of one stage: points (step, value) by name."""

    losses: dict[str, Points]
    validation: dict[str, Points]
    rates: Points
    speeds: Points


def curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Curves]:
    """Stage -> its curves, in the order of the log."""
    found = {}
    for stage in dict.fromkeys(record["stage"] for record in metrics):
        losses: dict[str, Points] = defaultdict(list)
        validation: dict[str, Points] = defaultdict(list)
        rates: Points = []
        speeds: Points = []
        for record in metrics:
            if record["stage"] != stage:
                continue
            step = record["step"]
            for name, value in (record.get("validation") or {}).items():
                if isinstance(value, (int, float)):
                    validation[name].append((step, float(value)))
            for name, value in (record.get("loss") or {}).items():
                if value is not None:
                    task = record["task"]
                    losses[name if task in (name, stage) else f"{task} · {name.removeprefix('class_')}"].append(
                        (step, value)
                    )
            if record.get("lr") is not None:
                rates.append((step, record["lr"]))
            if record.get("samples_per_s"):
                speeds.append((step, record["samples_per_s"]))
        found[stage] = Curves(losses, validation, rates, speeds)
    return found


def stage_title(stage: str) -> str:
    """A stage as a heading says it."""
    title = "Fine-tuning" if stage == "finetune" else "Pre-training"
    return title if stage in ("pretrain", "finetune") else f"{title}: {stage}"
