"""Part `correctness`: the device computes what the CPU computes, and the main job runs, dies and goes on."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.gpu import jobs
from bench.gpu.record import ROOT, Record

STEPS = 20
FIRST_BOUND = 1e-4  # relative, of the first step's loss: device against CPU
ZERO_BOUND = 1e-4  # relative, over all steps: ZeRO stages against stage 0
RESUMED_BOUND = 1e-3  # relative: kernels of a GPU that add in any order leave no two runs the same to the last bit
RUNS = [f"paper/{task}/1/{STEPS}" for task in ("mlm", "mvcl", "fda", "classify", "finetune")]
RUNS += [f"idc/{task}/1/{STEPS}" for task in ("mlm", "mvcl", "fda", "classify", "class_labels", "finetune")]
ZERO_RUNS = [f"paper/mlm,mvcl,fda,classify/{stage}/{STEPS}" for stage in (0, 1, 2, 3)]
# Long enough to be killed in the middle of fine-tuning.
TINY = {
    "pretrain.steps": 12, "finetune.steps": 120, "finetune.validate_every": 60, "finetune.checkpoint_every": 7,
    "cluster.workers": 1,
}  # fmt: skip
KILLED_AT = 12
HANGS_S = 150.0  # a command that takes longer hangs; one that is stopped before, with its part, has merely not been run


def run(record: Record) -> None:
    folder = record.work / "correctness"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record.attempt("reference numbers", 5, lambda: reference_numbers(record))
    record.attempt("steps as on the CPU", 10, lambda: steps(record, folder))
    record.attempt("main job, one worker", 30, lambda: main_job(record, folder))
    record.attempt("main job, two workers", 30, lambda: two_workers(record, folder))
    record.attempt("killed and resumed", 45, lambda: resumed(record, folder))
    record.attempt("tests marked gpu", 30, lambda: marked_tests(record, folder))


def reference_numbers(record: Record) -> None:
    """Numbers of the reference implementation, on the device in float32."""
    from idc.reference.parity import check

    found = check(ROOT / "tests" / "data" / "parity_seed0.npz", record.device)
    shares = {one.name: one.error / one.bound for one in found if one.bound}
    worst, failed = max(shares, key=lambda name: shares[name]), [one.name for one in found if not one.passed]
    text = f"{len(found)} quantities, {len(failed)} past their bound, the worst at {shares[worst]:.2f} of it ({worst})"
    record.check("reference numbers", not failed, text, failed=failed[:20], quantities=len(found))


def steps(record: Record, folder: Path) -> None:
    """Twenty steps of each task on the device and on the CPU in float32; ZeRO 0 to 3 on the device."""
    with ThreadPoolExecutor() as both:  # side by side: each waits for a process
        legs = ((record.device, "here", [*RUNS, *ZERO_RUNS]), ("cpu", "there", RUNS))
        (here, done_here), (there, done_there) = both.map(lambda leg: _losses(*leg, folder, record.left), legs)
    for device, done in ((record.device, done_here), ("cpu", done_there)):
        if not done.passed:
            _ended_badly(record, f"steps on {device}", done)
    for run in RUNS:
        network, task, *_ = run.split("/")
        name = f"{network} {task} as on the CPU"
        if run not in here or run not in there:
            record.skip(name, "no losses to compare")
            continue
        apart = _apart(here[run], there[run])
        text = f"first step {apart[0]:.1e} apart, worst of {len(apart)} {max(apart):.1e}"
        record.check(name, apart[0] <= FIRST_BOUND, text, first=apart[0], worst=max(apart))
    for run in ZERO_RUNS[1:]:
        stage = run.split("/")[2]
        if run not in here or ZERO_RUNS[0] not in here:
            record.skip(f"ZeRO {stage} as ZeRO 0", "no losses to compare")
            continue
        worst = max(_apart(here[run], here[ZERO_RUNS[0]]))
        record.check(f"ZeRO {stage} as ZeRO 0", worst <= ZERO_BOUND, f"worst of {STEPS} {worst:.1e}", worst=worst)


def _losses(
    device: str, leg: str, runs: list[str], folder: Path, left: float
) -> tuple[dict[str, list[float]], jobs.Done]:
    """The losses of each run, as far as the process came, and how it ended."""
    log = folder / f"steps-{leg}.log"
    done = jobs.command("bench.gpu.parts.steps", [device, *runs], min(left, HANGS_S), log)
    found = {}
    for line in done.output.splitlines():
        if line.startswith('{"run"'):
            one = json.loads(line)
            found[one["run"]] = one["losses"]
    return found, done


def _ended_badly(record: Record, name: str, done: jobs.Done) -> None:
    """A failed check, but for a command that was stopped because the part's time was over."""
    if done.code is None and done.seconds < HANGS_S - 1:
        record.skip(name, "time")
    else:
        record.check(name, False, done.last)


def _apart(found: list[float], expected: list[float]) -> list[float]:
    """Relative difference at every step; infinite for what is no number."""
    apart = [abs(one - other) / max(abs(other), 1e-12) for one, other in zip(found, expected, strict=True)]
    return [one if one == one else float("inf") for one in apart]


def main_job(record: Record, folder: Path) -> None:
    """The recipe `tiny` through Ray, all stages and scores."""
    gpus = 1 if record.device == "cuda" else 0
    _job(record, "main job, one worker", {"name": "one", "cluster.gpus_per_worker": gpus}, folder)


def two_workers(record: Record, folder: Path) -> None:
    """The same with two workers; on a GPU they share it, over gloo."""
    gpus = 0.5 if record.device == "cuda" else 0
    options = {"name": "two", "cluster.gpus_per_worker": gpus, "cluster.workers": 2}
    _job(record, "main job, two workers", options, folder)


def _job(record: Record, name: str, options: dict, folder: Path) -> bool:
    done = jobs.train("tiny", TINY | options, folder, min(record.left, HANGS_S))
    if not done.passed:
        _ended_badly(record, name, done)
        return False
    run = folder / "runs" / options["name"]
    missing = [file for file in ("scores.json", "report.html", "model/config.json") if not (run / file).is_file()]
    record.check(name, not missing, f"{done.seconds:.0f} s" + (f"; missing: {missing}" if missing else ""))
    return not missing


def resumed(record: Record, folder: Path) -> None:
    """kill -9 of the whole group in fine-tuning, the same command again: the losses of a run that was left alone."""
    undisturbed = jobs.lines(folder / "runs" / "one")
    if not undisturbed:
        record.skip("killed and resumed", "there is no undisturbed run to compare with")
        return
    options = TINY | {"name": "killed", "cluster.gpus_per_worker": 1 if record.device == "cuda" else 0}
    reached = jobs.killed_in_finetune("tiny", options, folder, KILLED_AT, min(record.left, HANGS_S))
    if reached is None or reached >= TINY["finetune.steps"]:
        record.skip("killed and resumed", f"it was not killed in fine-tuning (step {reached})")
        return
    done = jobs.train("tiny", options, folder, min(record.left, HANGS_S))
    if not done.passed:
        _ended_badly(record, "killed and resumed", done)
        return
    found = jobs.lines(folder / "runs" / "killed")
    worst, same = _worst(found, undisturbed), found == undisturbed
    text = f"killed at step {reached}, losses " + ("identical" if same else f"at most {worst:.1e} apart")
    record.check("killed and resumed", worst <= RESUMED_BOUND, text, worst=worst, identical=same)


def _worst(found: list[dict], expected: list[dict]) -> float:
    """The largest relative difference of a loss; infinite where the logs have other lines."""
    ours, theirs = (_losses_by_line(lines) for lines in (found, expected))
    if ours.keys() != theirs.keys():
        return float("inf")
    return max(_apart(list(ours.values()), list(theirs.values())))


def _losses_by_line(lines: list[dict]) -> dict[tuple, float]:
    return {
        (line["stage"], line["step"], line["task"], name): value
        for line in lines
        if "loss" in line
        for name, value in line["loss"].items()
    }


def marked_tests(record: Record, folder: Path) -> None:
    """Every test marked `gpu`, where pytest is there."""
    if importlib.util.find_spec("pytest") is None:
        record.skip("tests marked gpu", "no pytest here")
        return
    if record.device != "cuda":
        record.skip("tests marked gpu", "no GPU")
        return
    words = ["-q", "-m", "gpu", "tests", "-p", "no:cacheprovider"]
    done = jobs.command("pytest", words, min(record.left, HANGS_S), folder / "pytest.log")
    if not done.passed:
        _ended_badly(record, "tests marked gpu", done)
        return
    count = re.search(r"(\d+) passed", done.output)
    record.check("tests marked gpu", count is not None, f"{count[1]} passed" if count else done.last)
