"""The run that is left alone, and what became of one that was disturbed beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.disturbed.run import Run
from shards.errors import DataError


@dataclass(frozen=True)
class Found:
    """What became of a run. Seconds are counted from the fault."""

    fault: str
    noticed_s: float | None = None  # until the run said so
    again_s: float | None = None  # until it did a step further than it had come
    repeated: int | None = None  # steps done twice
    equal: bool = False  # losses, gradient norms and last weights
    said: str = ""


Fault = Callable[["Bench"], Found]


class Bench:
    """Makes runs, one of them left alone, and compares the others with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runs: list[Run] = []
        self.alone = self.run("alone")
        self.alone.end()

    def of(self, fault: Fault) -> Found:
        """What became of a run to which this is done. One that hangs, or ends as it should not, is not equal."""
        try:
            return fault(self)
        except DataError as error:
            return Found(fault.__name__, said=str(error))
        finally:
            for run in self._runs:
                run.close()

    def run(self, name: str, *more: str, root: Path | None = None, **environment: str) -> Run:
        """A run of that name, begun; `root`: with data of its own."""
        self._runs.append(Run(root or self.root, name, *more, **environment))
        return self._runs[-1]

    def equal(self, run: Run, calm: Run | None = None) -> bool:
        """Whether a run that has ended is that which was left alone, or another `calm` one, in all that it left."""
        calm = calm or self.alone
        weights = [one.newest().weights.read_bytes() for one in (run, calm)]
        return run.records() == calm.records() and run.skipped() == calm.skipped() and weights[0] == weights[1]

    def restarted(self, run: Run, fault: str, since: float, calm: Run | None = None) -> Found:
        """Of a run that was disturbed at the clock's time `since` and starts its workers again: waits for its end."""
        run.wait(lambda: _later(run, since))
        line = _later(run, since)[0]
        noticed = _time(line) - since
        # Workers that are gone said where they were up to a second before: the log may be further.
        before = max(line["reached"][1], run.reached())
        repeated = before - run.newest().commit.step
        run.wait(lambda: run.reached() > before)
        again = time.time() - since
        run.end()
        return Found(fault, noticed, again, repeated, self.equal(run, calm), line["line"])

    def again(self, run: Run) -> tuple[int, float]:
        """Gives the command of a run that has ended once more: steps that it repeats, seconds to a further one."""
        since, before = time.time(), run.reached()
        repeated = before - run.newest().commit.step
        run.start()
        run.wait(lambda: run.reached() > before)
        return repeated, time.time() - since


def _later(run: Run, since: float) -> list[dict]:
    """What its supervisor wrote down from then on."""
    return [line for line in run.restarts() if _time(line) >= since]


def _time(line: dict) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def difference(one: Sequence[dict], other: Sequence[dict]) -> float:
    """The largest relative difference of a loss or gradient norm, step by step."""
    found = 0.0
    for mine, theirs in zip(one, other, strict=True):
        pairs = [(mine["grad_norm"], theirs["grad_norm"])] + [
            (mine["loss"][k], theirs["loss"][k]) for k in mine["loss"]
        ]
        found = max(found, *(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs))
    return found
