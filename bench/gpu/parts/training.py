"""Part `training`: the largest recipe, data and all, within the minutes that are left."""

from __future__ import annotations

import shutil

from bench.gpu import jobs
from bench.gpu.parts import runs
from bench.gpu.record import Record

RECIPE, NAME = "blocks_full", "blocks-full-bench"
DATA_SHARE = 0.3  # of the time, for rendering
AROUND_S = 45.0  # start of Ray, export, captions and scores
FEATURES = {"backbone.size": "224,336"}  # of blocks: every pixel of pictures of this size
SMALL = {
    "model.d_model": 32, "model.heads": 2, "model.d_ff": 48, "model.cell_size": 16, "model.cross_modal_blocks": 1,
    "backbone.size": "48,64", "regions.global_batch_size": 8, "pretrain.global_batch_size": 16,
    "finetune.global_batch_size": 8, "regions.batch_sizes": "", "pretrain.batch_sizes": "", "evaluate.limit": 8,
    "data.pack_workers": 1,
}  # fmt: skip


def run(record: Record) -> None:
    runs.told(record, "training", train)


def options_of(record: Record) -> runs.Options:
    """Of the data and of the run, but for its steps."""
    given = runs.common(record) | FEATURES | {"evaluate.batch_size": 256}
    return given | (SMALL if record.small else {})


def train(record: Record) -> None:
    begun = record.left
    options = options_of(record)
    data, made = runs.prepared(record, RECIPE, options, DATA_SHARE * record.left)
    record.put("data", made, f"{made['scenes']} scenes in {made['seconds']:.0f} s")
    options |= data
    steps, _ = runs.step_seconds(record, RECIPE, options)
    text = ", ".join(f"{stage} {1e3 * seconds:.1f} ms" for stage, seconds in steps.items())
    record.put("step_ms", {stage: round(1e3 * seconds, 2) for stage, seconds in steps.items()}, text)
    around = 20.0 if record.small else AROUND_S
    scaled = schedule(runs.configuration(RECIPE, options), steps, max(record.left - around, 5.0))
    if record.small:
        scaled |= {f"{stage}.steps": 4 for stage in steps}
    planned = {name: scaled[f"{name}.steps"] for name in steps}
    record.put("steps", planned, ", ".join(f"{name} {count}" for name, count in planned.items()))
    shutil.rmtree(record.work / "runs" / NAME, ignore_errors=True)  # an earlier command's, on another schedule
    done = jobs.train(RECIPE, options | scaled | {"name": NAME}, record.work, record.left)
    runs.require(done, "the main job")
    found = runs.scored(record.work / "runs" / NAME)
    minutes = round((begun - record.left) / 60, 2)
    record.put("minutes", minutes, f"{minutes} from nothing to scores, of which {done.seconds / 60:.1f} the main job")
    told = {
        "skill of changed": found["skill"]["changed"],
        "object": found["accuracy"]["object"],
        "CIDEr": found["CIDEr"]["total"],
    }
    text = ", ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in told.items())
    record.put("scores", found, text)


def schedule(config, steps: dict[str, float], seconds: float) -> runs.Options:
    """Options that shorten all stages by one factor, so that their steps take the seconds; never longer than it is."""
    whole = sum(config.stage(name).steps * taken for name, taken in steps.items())
    factor = min(1.0, seconds / whole)
    found: runs.Options = {"finetune.validate_every": 0}
    for name in steps:
        stage = config.stage(name)
        count = max(1, round(factor * stage.steps))
        found |= {
            f"{name}.steps": count, f"{name}.warmup_steps": max(1, round(factor * stage.warmup_steps)),
            f"{name}.checkpoint_every": count, f"{name}.log_every": max(1, count // 50),
        }  # fmt: skip
    return found
