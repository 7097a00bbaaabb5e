"""What the runs gave: bench/results/your_data.json, and the table of docs/your-data.md."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.your_data.arms import EXPANDED, INIT, SCRATCH, Arm, figures, right_kind
from bench.your_data.folders import SIZES
from cluster.pipeline import SCORES
from shards.errors import DataError
from shards.format.whole_files import write_whole

RESULTS, PAGE = "bench/results/your_data/runs.json", "docs/your-data.md"
PLACE = re.compile(r"(<!-- your_data -->\n).*?(<!-- end -->)", re.DOTALL)
ABSENT = "not run"
NONE = [ABSENT, "", "", "", ""]


@dataclass(frozen=True)
class Problem:
    """Own pairs of one kind, and the ways to train on them that are compared."""

    label: str
    arms: tuple[Arm, ...]


PROBLEMS = {
    "edits": Problem("edits of photos", (SCRATCH, INIT)),
    "blocks": Problem("rendered scenes", (SCRATCH, INIT, EXPANDED)),
}
HEADS = ("training pairs", "beside them", "CIDEr", "right kind, %", "says change / none, %", "minutes", "seeds")


def write(runs: Path, checkout: Path) -> None:
    """Adds what is in runs/your_data to the results of a checkout, and writes the table of its page from these."""
    path, page = checkout / RESULTS, checkout / PAGE
    results = json.loads(path.read_bytes()) if path.is_file() else {}
    for scores in sorted(runs.glob(f"*/*/{SCORES}")):
        place, run = scores.parts[-3:-1]
        (problem, size), (arm, seed) = place.rsplit("-", 1), run.rsplit("-", 1)
        if problem in PROBLEMS:
            found = figures(scores.parent)
            if problem == "edits":
                found["right_kind"] = right_kind(scores.parent)
            results.setdefault(problem, {}).setdefault(size, {}).setdefault(arm, {})[seed] = found
    text = page.read_text(encoding="utf-8")
    if not PLACE.search(text):
        raise DataError(f"{page} has no place for the table: put '<!-- your_data -->' and '<!-- end -->' on two lines")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(results, indent=1, sort_keys=True) + "\n")
    write_whole(page, PLACE.sub(lambda found: found[1] + table(results) + found[2], text))


def table(results: dict) -> str:
    """Markdown: mean and standard deviation over the seeds; cells that nobody ran say so."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for problem, of in PROBLEMS.items():
        for size in SIZES:
            known = {name: list(runs.values()) for name, runs in results.get(problem, {}).get(str(size), {}).items()}
            cells = {arm.label: _cells(known[arm.name]) if arm.name in known else NONE for arm in of.arms}
            for label, row in cells.items() if known else [("any", NONE)]:
                lines.append("| " + " | ".join([f"{size:,} {of.label}", label, *row]) + " |")
    return "\n".join(lines) + "\n"


def _cells(runs: Sequence[dict]) -> list[str]:
    cider, kind, changed, unchanged = (
        spread([run.get(name) for run in runs]) for name in ("CIDEr", "right_kind", "changed", "unchanged")
    )
    minutes = statistics.mean(run["seconds"] for run in runs) / 60
    return [cider, kind, f"{changed} / {unchanged}", f"{minutes:.1f}", str(len(runs))]


def spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation of what the seeds gave; a dash where they have no such figure."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.1f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.1f}"
