"""Commands of the project run as a user runs them, each with a limit; and the main job killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.record import ROOT
from cluster.tracking.run_log import read_without_times
from tune.trials.run import tie_to


@dataclass(frozen=True)
class Done:
    """How a command ended. code None: it was stopped at its limit."""

    code: int | None
    seconds: float
    output: str

    @property
    def passed(self) -> bool:
        return self.code == 0

    @property
    def last(self) -> str:
        """The last lines of what it printed, as one."""
        how = "stopped at its limit" if self.code is None else f"exit code {self.code}"
        return f"{how}: " + " / ".join(line.strip() for line in self.output.strip().splitlines()[-4:])[:600]


def command(module: str, words: Sequence[object], limit: float, log: Path) -> Done:
    """Runs `python MODULE WORDS...` from the project's root; its output goes to `log`."""
    process = start(module, words, log)
    begun = time.monotonic()
    try:
        code = process.wait(max(limit, 1.0))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        end(process)
    return Done(code, round(time.monotonic() - begun, 1), log.read_text(errors="replace"))


def start(module: str, words: Sequence[object], log: Path) -> subprocess.Popen:
    """The same, not waited for, as a process group of its own that ends with this process."""
    parent = os.getpid()
    environment = {name: value for name, value in os.environ.items() if name not in ("DS_ACCELERATOR", "RAY_ADDRESS")}
    path = [module] if module.endswith(".py") else ["-m", module]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-u", *path, *map(str, words)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: tie_to(parent),
        )  # fmt: skip


def end(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all of its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def train(recipe: str, options: dict[str, object], root: Path, limit: float) -> Done:
    """`python cluster/train.py RECIPE --root ROOT OPTIONS`, what it prints in ROOT/NAME.log."""
    return command("cluster/train.py", train_words(recipe, options, root), limit, _log(options, root))


def train_words(recipe: str, options: dict[str, object], root: Path) -> list[str]:
    """The words after `python cluster/train.py`."""
    given = {"root": root, "log.wandb": "disabled", "evaluate.tokenizer": "split"} | options
    return [recipe, *(str(word) for name, value in given.items() for word in (f"--{name}", value))]


def killed_in_finetune(recipe: str, options: dict[str, object], root: Path, step: int, limit: float) -> int | None:
    """Starts the main job and kills its whole group at this step of fine-tuning. The step it had reached.

    None where it ended before by itself, or did not get there within the limit.
    """
    process = start("cluster/train.py", train_words(recipe, options, root), _log(options, root))
    run, until = root / "runs" / str(options["name"]), time.monotonic() + limit
    try:
        while process.poll() is None and time.monotonic() < until:
            if any(line["stage"] == "finetune" and line["step"] >= step for line in lines(run)):
                end(process)
                return max(line["step"] for line in lines(run) if line["stage"] == "finetune")
            time.sleep(0.02)
        return None
    finally:
        end(process)


def lines(run: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl without what depends on the clock; none where there is no file yet."""
    return read_without_times(run)


def _log(options: dict[str, object], root: Path) -> Path:
    return root / f"{str(options['name']).replace('/', '-')}.log"
