"""Trains the arms of a table of docs/results.md and writes the page: `python bench/ablation.py TABLE`, then `--write`.

Each arm and seed is an ordinary run of cluster/train.py in a process of its own, without Ray, in the folder
runs/ablation/SCALE/TABLE/ARM-SEED. The same command again goes on where it was stopped; a run with scores is over.
"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.ablations.tables import COMMON, MINUTES, RATE_STEPS, SCALES, TABLES, Arm, Options, Seconds, Setting  # noqa: E402
from cluster.config.options import nearest  # noqa: E402
from cluster.errors import ConfigError, TrainingError  # noqa: E402
from cluster.launch.run_folder import find_root  # noqa: E402
from cluster.pipeline import SCORES  # noqa: E402
from cluster.recipes.commandline import parse, read_words  # noqa: E402
from cluster.tracking.run_log import read_metrics  # noqa: E402
from shards.errors import run_main  # noqa: E402
from shards.progress import say  # noqa: E402
from tune.search.plan import has_finished  # noqa: E402
from tune.trials.process import LOCK_LIMIT_S, locked  # noqa: E402

USAGE = (
    "usage: python bench/ablation.py TABLE [--seeds 0,1,2] [--scale small|main] [--only ARM,...] [--minutes N] "
    "[--dotted.option value]... | --write"
)
HELP = f"""{USAGE}

  TABLE         {", ".join(TABLES)}
  --seeds A,B   [0,1,2]
  --scale S     small: 1,000 scenes of 160x120, 80 + 240 steps; main: the recipe blocks, pictures of 240x160 [small]
  --only A,B    these arms alone
  --minutes N   of training, in the table `reference` [small: 10, main: 60]
  --write       puts what the runs gave into bench/results/ablation.json, and its tables into docs/results.md
  --OPTION V    an option of cluster/train.py, for all arms of the recipe blocks
"""
FOLDER = "ablation"  # below runs/
RUN_LIMIT_S = 12 * 3600.0


class RunFailedError(TrainingError):
    """A run ended with an exit code of its own."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = max(code, 1)  # a signal's is negative


class Bench:
    """The runs of one table at one scale."""

    def __init__(self, table: str, scale: str, root: Path) -> None:
        self._table, self._scale, self._root = table, scale, root

    def arm(self, arm: Arm, seed: int) -> None:
        """Trains and scores an arm with one seed, and before it what it starts from."""
        name = f"{self._table}/{arm.name}-{seed}"
        if (self._folder(name) / SCORES).is_file():
            say(f"{name} is done")
            return
        options = dict(arm.options)
        if arm.after is not None:
            options["init"] = str(self._shared(arm.after, seed).relative_to(self._root))
        self._run(name, arm.recipe, options, seed, "all")

    def measure(self, arm: Arm) -> Seconds:
        """Seconds that a step of each stage takes, tasks in their shares; from a few steps of a run kept for that."""
        name, options = f"{self._table}/rate-{arm.name}", dict(arm.options)
        stages = [stage for stage in arm.config.stages if arm.config.stage(stage).steps]
        for stage in stages:
            options |= {f"{stage}.steps": str(RATE_STEPS), f"{stage}.log_every": "1"}
        options["finetune.validate_every"] = "0"
        config = dataclasses.replace(arm, options=options).config
        if not has_finished(self._folder(name), config, config.stages):
            self._run(name, arm.recipe, options, 0, "train")
        found = {}
        for stage in stages:
            times = defaultdict(list)
            for record in read_metrics(self._folder(name)):
                if record["stage"] == stage and record["step"] > 1:  # the first one waits for the first batch
                    times[record["task"]].append(1 / record["steps_per_s"])
            ratios = config.stage(stage).ratios
            whole = sum(ratios[task] for task in times)
            found[stage] = sum(ratios[task] * sum(taken) / len(taken) for task, taken in times.items()) / whole
        return found

    def _shared(self, arm: Arm, seed: int) -> Path:
        """The run folder of stages that arms share, trained where they are not."""
        name = f"shared/{arm.name}-{seed}"
        config = arm.config
        if not has_finished(self._folder(name), config, config.pretraining):
            self._run(name, arm.recipe, arm.options, seed, "pretrain")
        return self._folder(name)

    def _folder(self, name: str) -> Path:
        return self._root / "runs" / FOLDER / self._scale / name

    def _run(self, name: str, recipe: str, options: Options, seed: int, stage: str) -> None:
        """One command, in a process that ends with this one. TrainingError, with its exit code, where it fails."""
        words = {
            "name": f"{FOLDER}/{self._scale}/{name}",
            "root": str(self._root.resolve()),
            "seed": str(seed),
            "stage": stage,
        }
        arguments = [word for option, value in (words | options).items() for word in (f"--{option}", value)]
        say(f"{name} begins")
        started = time.monotonic()
        with locked(self._root / "runs" / FOLDER / self._scale, name.replace("/", "-"), LOCK_LIMIT_S) as lock:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.one_worker", str(os.getpid()), recipe, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=(lock,),  # held as long as the process is there
            )
            try:
                code = process.wait(RUN_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise TrainingError(
                    f"{name} has not ended after {RUN_LIMIT_S / 3600:g} hours and was stopped"
                ) from None
            finally:
                process.kill()
                process.wait()
        if code:
            raise RunFailedError(f"{name} ended with exit code {code}; what was wrong is said above", code)
        say(f"{name} took {time.monotonic() - started:.0f} s")


def main(arguments: Sequence[str]) -> int:
    words = read_words(arguments, USAGE, flags=("write",))
    if "help" in words.flags:
        print(HELP)
        return 0
    options = dict(words.options)
    if "write" in words.flags:
        if words.recipe or set(options) - {"root"}:
            raise ConfigError(f"--write takes no table and no option but --root; {USAGE}")
        from bench.ablations.page import write

        write(find_root(options.get("root", ""), ROOT) / "runs" / FOLDER, ROOT)
        return 0
    if words.recipe not in TABLES:
        raise ConfigError(f"no table {words.recipe!r}{nearest(words.recipe or '', TABLES)}; {USAGE}")
    scale = options.pop("scale", "small")
    if scale not in SCALES:
        raise ConfigError(f"--scale {scale!r} is not a scale{nearest(scale, SCALES)}")
    seeds = _numbers("seeds", options.pop("seeds", "0,1,2"))
    only = options.pop("only", "")
    minutes = _minutes(options.pop("minutes", str(MINUTES[scale])))
    root = find_root(options.pop("root", ""), ROOT)
    given = COMMON | SCALES[scale] | options
    config = parse(["blocks", *(word for name, value in given.items() for word in (f"--{name}", value))]).config
    bench = Bench(words.recipe, scale, root)
    try:
        arms = TABLES[words.recipe].arms(Setting(given, config, minutes, bench.measure))
        if unknown := set(filter(None, only.split(","))) - {arm.name for arm in arms}:
            names = [arm.name for arm in arms]
            raise ConfigError(f"--only {min(unknown)!r} is no arm of {words.recipe}{nearest(min(unknown), names)}")
        for seed in seeds:
            for arm in arms:
                if not only or arm.name in only.split(","):
                    bench.arm(arm, seed)
    except TrainingError as error:
        say(str(error))
        return error.exit_code
    return 0


def _numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between them."""
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise ConfigError(f"--{option} {text!r} must be whole numbers with commas between them, such as 0,1,2")
    return [int(number) for number in numbers]


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise ConfigError(f"--minutes {text!r} must be a number above 0")
    return minutes


if __name__ == "__main__":
    run_main(main)
