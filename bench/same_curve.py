"""One curve whatever trains it, also across a kill: `python bench/same_curve.py [--write PNG]`.

Each run takes the same steps from the same seed, without dropout (every rank draws its own). The fourth is killed
(SIGKILL, all its processes) half-way and started again by the same command. Prints one JSON line: the largest relative
difference of any loss or gradient norm from one worker's. The exit code is 1 where it is above 1e-4. --write draws the
curves one on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cluster.tracking.run_log import read_metrics  # noqa: E402
from shards.errors import DataError, run_main  # noqa: E402

STEPS, KILLED_AT, BOUND, LIMIT_S = 80, 40, 1e-4, 600.0
RUNS = {"1 worker": 1, "2 workers": 2, "4 workers": 4, "2 workers, killed": 2}


def start(root: Path, name: str, workers: int) -> subprocess.Popen:
    """Starts training in a session of its own, its output in a file beside the run."""
    words = [
        "tiny", "--stage", "train", "--root", root, "--name", name, "--cluster.workers", workers,
        "--pretrain.steps", STEPS, "--finetune.steps", 0, "--pretrain.ratios", "mlm=3,mvcl=1", "--pretrain.lr", "3e-3",
        "--pretrain.global_batch_size", 16, "--model.dropout", 0, "--pretrain.checkpoint_every", KILLED_AT // 2,
    ]  # fmt: skip
    with (root / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, ROOT / "cluster" / "train.py", *map(str, words)], stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def finish(process: subprocess.Popen, root: Path, name: str) -> None:
    """Waits for a run. DataError where it fails or takes longer than the limit."""
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = f"no end within {LIMIT_S:g} s"
    if code:
        last = (root / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise DataError(f"the run {name} failed ({code}): {''.join(last)}")


def curve(root: Path, label: str, workers: int) -> list[dict]:
    """The records of a run's steps."""
    name = label.replace(" ", "_").replace(",", "")
    process = start(root, name, workers)
    if "killed" in label:
        until = time.monotonic() + LIMIT_S
        while len(records(root, name)) < KILLED_AT and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        process = start(root, name, workers)
    finish(process, root, name)
    found = records(root, name)
    assert [record["step"] for record in found] == list(range(1, STEPS + 1)), "a line a step"
    return found


def records(root: Path, name: str) -> list[dict]:
    run = root / "runs" / name
    return [record for record in read_metrics(run) if "loss" in record] if run.is_dir() else []


def numbers(record: dict) -> dict[str, float]:
    """What a step's line measured."""
    return {**record["loss"], "grad_norm": record["grad_norm"]}


def difference(one: list[dict], other: list[dict]) -> float:
    """The largest relative difference of a loss or gradient norm, step by step."""
    pairs = [(a, numbers(r)[name]) for s, r in zip(one, other, strict=True) for name, a in numbers(s).items()]
    return max(abs(a - b) / abs(a) for a, b in pairs)


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """The MLM loss of every run; later lines are thinner and broken, so that each is seen on the ones below it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.0), dpi=150)
    widths, dashes = (7.0, 4.0, 2.0, 1.5), ("-", "-", "-", (0, (2, 3)))
    for (label, found), width, dash, color in zip(
        curves.items(), widths, dashes, ("#b8d4f0", "#5598d6", "#1b4f8a", "#e07020"), strict=True
    ):
        steps = [record for record in found if "mlm" in record["loss"]]
        places = [record["step"] for record in steps]
        axes.plot(places, [record["loss"]["mlm"] for record in steps], lw=width, ls=dash, color=color, label=label)
    axes.axvline(KILLED_AT, color="#e07020", lw=0.8, alpha=0.6)
    axes.annotate("kill -9", (KILLED_AT + 0.6, axes.get_ylim()[1]), va="top", fontsize=8, color="#e07020")
    axes.set_xlabel("step")
    axes.set_ylabel("MLM loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="PNG", help="draw the curves into this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        curves = {label: curve(Path(folder), label, workers) for label, workers in RUNS.items()}
    one = curves["1 worker"]
    found = {label: difference(one, other) for label, other in curves.items() if other is not one}
    two = [numbers(record) for record in curves["2 workers"]]
    result = {
        "steps": STEPS,
        "largest_relative_difference_from_1_worker": {label: float(f"{value:.2g}") for label, value in found.items()},
        "killed_equals_undisturbed": two == [numbers(record) for record in curves["2 workers, killed"]],
    }
    print(json.dumps(result))
    if options.write:
        draw(curves, options.write)
    return 0 if max(found.values()) <= BOUND and result["killed_equals_undisturbed"] else 1


if __name__ == "__main__":
    run_main(main)
