"""Goodput: the share of a run's wall time that went into steps that count.

Steps that count are those in metrics.jsonl: one that was done again after a fault is there once. The wall time is from
the run's first command to the end of its training: faults, restarts and pauses between commands are in it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.tracking.run_log import PROVENANCE, read_metrics
from shards.format.whole_files import write_whole

FILE = "goodput.json"


def note(run: Path) -> None:
    """Writes goodput.json, whenever the training of a command has come to its end: {"step_s", "wall_s"}, seconds."""
    if found := _measured(run):
        write_whole(run / FILE, json.dumps(found) + "\n")


def so_far(run: Path) -> float | None:
    """Goodput from 0 to 1 of a run that is under way, or at its end; None if it is not known."""
    found = _measured(run)
    return round(found["step_s"] / found["wall_s"], 4) if found and found["wall_s"] > 0 else None


def _measured(run: Path) -> dict[str, float] | None:
    """Seconds of steps and of all up to now; None if the workers were not started by a command."""
    try:
        began = datetime.datetime.fromisoformat(json.loads((run / PROVENANCE).read_bytes())[0]["time"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    wall_s = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
    return {"step_s": round(step_seconds(read_metrics(run)), 2), "wall_s": round(wall_s, 2)}


def read(run: Path) -> tuple[float | None, str]:
    """(goodput from 0 to 1, "") of a run that is trained; (None, why it is not known)."""
    try:
        found = json.loads((run / FILE).read_bytes())
        step_s, wall_s = float(found["step_s"]), float(found["wall_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return None, f"{FILE} is not there: the run was ended, or trained by an earlier version, before it was written"
    if not 0 < step_s <= wall_s:
        return None, f"{step_s:g} s of steps in {wall_s:g} s: a clock was changed"
    return step_s / wall_s, ""


def step_seconds(metrics: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that the steps of metrics.jsonl took, waits for data included, validations and checkpoints left out."""
    seconds, reached = 0.0, dict[str, int]()
    for record in metrics:
        if rate := record.get("steps_per_s"):  # since the line before it, of the steps up to this one
            seconds += (record["step"] - reached.get(record["stage"], 0)) / rate
            reached[record["stage"]] = record["step"]
    return seconds
