"""A run of the recipe `tiny` on two workers, without dropout: started, looked at, waited for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from cluster.tracking.run_log import METRICS, RESTARTS, SKIPPED, read_without_times
from cluster.training import checkpoint
from shards.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY, LIMIT_S, TIMEOUT_S = 160, 10, 600.0, 20
STOPPED = 85  # the exit code of a run that was asked to stop
TAIL = 1 << 14  # bytes that hold the last lines of a log


class Run:
    """A run of cluster/train.py in the bench's folder."""

    def __init__(self, root: Path, name: str, *more: str, **environment: str) -> None:
        """`more`: options of the command; `environment`: further variables."""
        self.folder, self._log = root / "runs" / name, root / f"{name}.txt"
        self._environment = os.environ | environment
        options = {
            "stage": "train", "root": root, "name": name, "log.wandb": "disabled", "pretrain.steps": 0,
            "finetune.steps": STEPS, "finetune.validate_every": 0, "finetune.checkpoint_every": EVERY,
            "model.dropout": 0, "cluster.workers": 2, "cluster.gpus_per_worker": 0, "cluster.timeout_s": TIMEOUT_S,
            "data.pack_workers": 1,
        }  # fmt: skip
        words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
        self._command = [sys.executable, str(ROOT / "cluster" / "train.py"), "tiny", *words, *more]
        self.driver = self.start()

    def start(self, *more: str) -> subprocess.Popen:
        """The command, once more; with further options."""
        with self._log.open("ab") as log:
            self.driver = subprocess.Popen(
                [*self._command, *more], stdout=log, stderr=log, start_new_session=True, env=self._environment
            )
        return self.driver

    def end(self, wanted: int = 0) -> None:
        """Waits for the end. DataError if it comes with another exit code, or not within the limit."""
        try:
            code: int | str = self.driver.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.driver.pid, signal.SIGKILL)
            code = f"no end within {LIMIT_S:g} s"
        if code != wanted:
            raise DataError(f"{self.folder.name} ended with {code} in place of {wanted}: {self.last_line()}")

    def kill(self) -> None:
        """kill -9 of the driver; its workers, which notice, are waited for."""
        workers = [self.worker(rank) for rank in (0, 1)]
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait(60)
        until = time.monotonic() + LIMIT_S
        while any(psutil.pid_exists(pid) for pid in workers):
            if time.monotonic() > until:
                raise DataError(f"workers of {self.folder.name} are still there {LIMIT_S:g} s after their driver")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends what is left of it."""
        if self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait(60)

    def said(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    def last_line(self) -> str:
        """What it said last."""
        lines = self.said().strip().splitlines()
        return lines[-1] if lines else ""

    def reached(self) -> int:
        """The last step in its log, of which the end alone is read: a run is asked often, and not to be disturbed."""
        try:
            with (self.folder / METRICS).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
                lines = log.read().split(b"\n")
        except FileNotFoundError:
            return 0
        return json.loads(lines[-2])["step"] if len(lines) > 1 else 0

    def records(self) -> list[dict]:
        """The lines of its log but for times."""
        return read_without_times(self.folder)

    def restarts(self) -> list[dict]:
        """What its supervisor wrote down."""
        return self._lines(RESTARTS)

    def skipped(self) -> list[dict]:
        """The steps that were left out."""
        return self._lines(SKIPPED)

    def _lines(self, file: str) -> list[dict]:
        path = self.folder / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def wait(self, what: Callable[[], object]) -> None:
        """Until something is so. DataError if the run ends before, or past the limit."""
        until = time.monotonic() + LIMIT_S
        while not what():
            if self.driver.poll() is not None or time.monotonic() > until:
                raise DataError(f"{self.folder.name} ended too early, or nothing came: {self.last_line()}")
            time.sleep(0.005)

    def worker(self, rank: int) -> int:
        """The process of a rank, as its log names it."""
        log = (self.folder / "logs" / f"rank_{rank}.log").read_text()
        return int(re.findall(rf"rank {rank} on .*?, process (\d+)", log)[-1])

    def newest(self) -> checkpoint.Checkpoint:
        """Its last checkpoint."""
        found = checkpoint.latest(self.folder / "checkpoints" / "finetune")
        if found is None:
            raise DataError(f"{self.folder} has no checkpoint")
        return found
