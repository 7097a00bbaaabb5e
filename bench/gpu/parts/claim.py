"""Part `claim`: what pre-training and photos are worth to the published network, d = 512, at equal steps.

Arms differ in one thing and have the same number of steps in all: half of pre-training and half of fine-tuning, or all
of fine-tuning. The learning rate of fine-tuning is chosen for each arm and seed by CIDEr on the validation split. Each
run is what cluster/train.py makes of the recipe blocks_paper, in one process without Ray. A run that has its scores is
in claim.json and is not made again, so the part can be stopped anywhere and gone on with by a later command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.gpu.arms import ARMS, BASE, SEEDS, Arm
from bench.gpu.parts import runs
from bench.gpu.record import Record
from cluster.tracking.run_log import read_metrics

RECIPE = "blocks_paper"
RATES = ("1e-4", "3e-4")  # of fine-tuning
PRETRAINING_RATE = "3e-4"  # the paper's 1e-4 is for 250,000 steps
WARM_UP = 8000 / 250_000  # share of pre-training, as in the paper
HALVED = (0.25, 0.5)  # shares of fine-tuning at which its rate is halved: 10,000 and 20,000 of 40,000
DATA_SHARE, VALIDATIONS, VALIDATED = 0.2, 4, 400
FEWEST_STEPS = 100
SMALL = {
    "model.d_model": 32, "model.heads": 2, "model.d_ff": 48, "model.cross_modal_blocks": 1, "backbone.size": "48,48",
    "pretrain.global_batch_size": 8, "finetune.global_batch_size": 8,
    "evaluate.limit": 6, "data.pack_workers": 1,
}  # fmt: skip


CORE = ("none", "mlm", "all")


def run(record: Record) -> None:
    record.results |= record.earlier()
    record.results.pop("checks", None)
    runs.told(record, "claim", compare)


def options_of(record: Record) -> runs.Options:
    """Of all arms: one micro-batch a step."""
    given = runs.common(record) | {
        "pretrain.micro_batch_size": 200, "finetune.micro_batch_size": 200,
        "pretrain.lr": PRETRAINING_RATE, "evaluate.batch_size": 256,
    }  # fmt: skip
    return given | (SMALL if record.small else {})


def compare(record: Record) -> None:
    plan, options = record.results.get("plan"), options_of(record)
    counts = plan["counts"] if plan else None  # arms on other data could not stand beside each other
    data, made = runs.prepared(record, RECIPE, options, DATA_SHARE * record.left, counts)
    record.say(f"data: {made['scenes']} scenes in {made['seconds']:.0f} s")
    options |= data
    if plan is None:
        steps, around = runs.step_seconds(record, RECIPE, options | tasks_of(BASE, record.small))
        plan = {
            "scenes": made["scenes"],
            "counts": made["counts"],
            "step_s": steps,
            "around_s": around,
            "rates": list(RATES),
        }
        plan["steps"] = 8 if record.small else affordable(steps, around, record.left)
        record.results["runs"] = {}
        record.put("plan", plan, f"{plan['steps']} steps an arm, {around:.0f} s a run beside its steps")
    for seed in SEEDS[:1] if record.small else SEEDS:
        for name, arm in ARMS.items():
            if not finish(record, f"{name}-{seed}", arm, seed, options, plan):
                record.not_run |= {key: "time" for key in waiting(record.results["runs"]) if key not in record.not_run}
                return


def affordable(steps: dict[str, float], around: float, seconds: float) -> int:
    """Steps of an arm so that the three arms of the first seed, all rates, fit into nine tenths of the seconds."""
    pretraining, finetuning = steps["pretrain"], steps["finetune"]
    arms, rates = len(CORE) - 1, len(RATES)
    commands = arms + rates * len(CORE)
    a_step = arms * (pretraining / 2 + rates * finetuning / 2) + rates * finetuning
    return max(FEWEST_STEPS, int((0.9 * seconds - commands * around) / a_step) // 50 * 50)


def waiting(done: dict[str, Any]) -> list[str]:
    """Arms and seeds without a result."""
    keys = [f"{name}-{seed}" for seed in SEEDS for name in ARMS]
    return [key for key in keys if "chosen" not in done.get(key, {})]


def finish(record: Record, key: str, arm: Arm, seed: int, options: runs.Options, plan: dict[str, Any]) -> bool:
    """Trains what an arm lacks; False where there is no time for it."""
    found = record.results["runs"].setdefault(key, {"label": arm.label, "steps": split(arm, plan), "rates": {}})
    if "chosen" in found:
        return True
    pretraining, finetuning = found["steps"]
    folder = f"claim-{plan['scenes']}-{plan['steps']}/{key}"
    options = options | {"seed": seed}
    if arm.ratios:
        if not record.fits(key, pretraining * plan["step_s"]["pretrain"] + plan["around_s"]):
            return False
        words = pretraining_options(arm, pretraining, record.small) | {
            "name": f"{folder}/pretrain",
            "stage": "pretrain",
        }
        runs.alone(record, RECIPE, options | words, record.left)
    for rate in plan["rates"]:
        if rate in found["rates"]:
            continue
        if not record.fits(key, finetuning * plan["step_s"]["finetune"] + plan["around_s"]):
            return False
        start = {"init": f"runs/{folder}/pretrain"} if arm.ratios else {}
        words = finetuning_options(finetuning, rate) | start | {"name": f"{folder}/lr-{rate}"}
        done = runs.alone(record, RECIPE, options | words, record.left)
        plan["around_s"] = round(max(done.seconds - finetuning * plan["step_s"]["finetune"], 1.0), 1)
        run = record.work / "runs" / folder / f"lr-{rate}"
        found["rates"][rate] = {"validation": best_validation(run), "seconds": done.seconds} | runs.scored(run)
        record.write()
    rates = found["rates"]
    found["chosen"] = max(rates, key=lambda rate: rates[rate]["validation"] or 0.0)
    chosen = rates[found["chosen"]]
    record.not_run.pop(key, None)
    record.put("runs", record.results["runs"], f"{key}: CIDEr {chosen['CIDEr']['total']}, lr {found['chosen']}")
    return True


def split(arm: Arm, plan: dict[str, Any]) -> list[int]:
    """Steps of pre-training and of fine-tuning."""
    return [plan["steps"] // 2, plan["steps"] - plan["steps"] // 2] if arm.ratios else [0, plan["steps"]]


def tasks_of(ratios: str, small: bool) -> runs.Options:
    """The tasks of pre-training, FDA on a seventh of the batch, with photos too."""
    aligning = [task for task in ("fda", "photo_fda") if f",{task}=" in f",{ratios}"]
    sizes = {"pretrain.batch_sizes": ",".join(f"{task}={8 if small else 28}" for task in aligning)} if aligning else {}
    return {"pretrain.ratios": ratios} | sizes


def pretraining_options(arm: Arm, steps: int, small: bool) -> runs.Options:
    return tasks_of(arm.ratios, small) | {
        "pretrain.steps": steps, "pretrain.warmup_steps": max(1, round(WARM_UP * steps)),
        "pretrain.checkpoint_every": steps, "pretrain.keep": 1,
    }  # fmt: skip


def finetuning_options(steps: int, rate: str) -> runs.Options:
    return {
        "pretrain.steps": 0, "finetune.steps": steps, "finetune.lr": rate,
        "finetune.halve_at": ",".join(str(max(1, round(share * steps))) for share in HALVED),
        "finetune.validate_every": max(1, -(-steps // VALIDATIONS)), "finetune.validate_limit": VALIDATED,
        "finetune.checkpoint_every": steps, "finetune.keep": 1,
    }  # fmt: skip


def best_validation(run: Path) -> float | None:
    """The best CIDEr of the validation split along the way."""
    found = [line["validation"]["CIDEr"] for line in read_metrics(run) if "validation" in line]
    return max((value for value in found if value is not None), default=None)
