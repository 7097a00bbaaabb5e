"""What a sweep remembers: trials.jsonl, one line an event, appended by the sweep's driver alone and never rewritten.

A trial is known by its key, the hash of its configuration, whatever Ray called it. Lines cut by a kill are passed over.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.training.checkpoint import best_step

FILE = "trials.jsonl"
RUNNING, FINISHED, STOPPED, REPLACED, DIVERGED, FAILED = (
    "running", "finished", "stopped", "replaced", "diverged", "failed"
)  # fmt: skip
# States in which a trial is never run again; one that failed is tried again by the next command.
FINAL = (FINISHED, STOPPED, REPLACED, DIVERGED)


@dataclass
class Trial:
    """One trial, as the table has it."""

    key: str
    number: int  # in the order of first starts
    values: dict[str, Any]
    member: int  # of the population; of other searches, its number
    donor: dict | None = None  # {"run", "step", "trial"} of the checkpoint that it went on from
    starts: list[float] = field(default_factory=list)  # when each attempt began, seconds since 1970
    ends: list[float] = field(default_factory=list)  # when it ended; of a killed attempt, its last line
    scores: dict[int, float] = field(default_factory=dict)  # step -> CIDEr on validation
    # step -> what the recipe's `finetune.select` compares; None: nothing, the newest checkpoint is kept
    chosen_by: dict[int, float | None] = field(default_factory=dict)
    seed: int | None = None  # of a trial of the search that is run again: the seed of this run
    state: str = RUNNING
    reason: str = ""

    def kept_at(self, step: int) -> int | None:
        """The step of the checkpoint that the run keeps, by its recipe's rule, after `step` steps."""
        return best_step({done: value for done, value in self.chosen_by.items() if done <= step})

    @property
    def kept(self) -> int | None:
        """The step of the checkpoint that is kept, which a finished run exports."""
        return self.kept_at(self.step)

    @property
    def score(self) -> float | None:
        """CIDEr on validation of the checkpoint that is kept: the value of the trial."""
        return None if self.kept is None else self.scores[self.kept]

    @property
    def value(self) -> float:
        """The score of a trial that has one."""
        assert self.score is not None, "nothing is compared that has no score"
        return self.score

    @property
    def step(self) -> int:
        """The last step with a score."""
        return max(self.scores, default=0)


@dataclass
class Session:
    """One time the command ran: when it began and was last heard of, and how many trials it ran at once."""

    start: float
    end: float
    slots: int


class Table:
    """The trials of a sweep."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there."""
        self._path = folder / FILE
        self.trials: dict[str, Trial] = {}  # of the search
        self.repeats: dict[str, dict[int, Trial]] = {}  # key of a trial of the search -> seed -> the same once more
        self._runs: dict[str, Trial] = {}  # all of them
        self.sessions: list[Session] = []
        data = self._path.read_bytes() if self._path.is_file() else b""
        self._torn = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                self._take(event)

    def session(self, slots: int) -> None:
        """The command begins."""
        self._append({"event": "session", "slots": slots})

    @property
    def runs(self) -> list[Trial]:
        """The trials of the search and their repeats."""
        return list(self._runs.values())

    def run(self, key: str) -> Trial | None:
        """The trial of the search, or the repeat of one, that works in this run folder."""
        return self._runs.get(key)

    def begun(self, key: str) -> Trial:
        """The same of one that has begun."""
        return self._runs[key]

    def start(self, key: str, values: dict[str, Any], member: int | None = None, donor: dict | None = None) -> None:
        """An attempt at a trial begins."""
        event: dict[str, Any] = {"event": "start", "trial": key, "values": values}
        event |= {} if member is None else {"member": member}
        self._append(event | ({} if donor is None else {"donor": donor}))

    def start_again(self, key: str, trial: Trial, seed: int) -> None:
        """An attempt at a repeat of a trial of the search begins, with another seed."""
        self._append({"event": "start", "trial": key, "values": trial.values, "of": trial.key, "seed": seed})

    def score(self, key: str, step: int, cider: float, chosen_by: float | None) -> None:
        """A validation. chosen_by: the score by which the kept checkpoint is chosen; None: the newest one is kept."""
        self._append({"event": "score", "trial": key, "step": step, "CIDEr": cider, "chosen_by": chosen_by})

    def end(self, key: str, state: str, reason: str = "") -> None:
        """An attempt is over."""
        self._append({"event": "end", "trial": key, "state": state} | ({"reason": reason} if reason else {}))

    def close(self) -> None:
        """The command ends."""
        self._append({"event": "over"})

    def _append(self, event: dict[str, Any]) -> None:
        event = {"time": round(time.time(), 3)} | event
        with self._path.open("ab") as file:
            file.write(b"\n" * self._torn + json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        when = event["time"]
        if event["event"] == "session":
            self.sessions.append(Session(when, when, event["slots"]))
            return
        if self.sessions:
            self.sessions[-1].end = when
        if event["event"] == "over":
            return
        key = event["trial"]
        if event["event"] == "start":
            trial = self._begun(event)
            if trial is None:
                return  # a repeat of a trial whose first line was cut off
            trial.starts.append(when)
            trial.ends.append(when)
            trial.state, trial.reason = RUNNING, ""
            return
        trial = self._runs.get(key)
        if trial is None:
            return  # its first line was cut off
        trial.ends[-1] = when
        if event["event"] == "score":
            trial.scores[event["step"]] = event["CIDEr"]
            # Lines of earlier versions say nothing else: there the highest CIDEr was what counted.
            trial.chosen_by[event["step"]] = event.get("chosen_by", event["CIDEr"])
        else:
            trial.state, trial.reason = event["state"], event.get("reason", "")

    def _begun(self, event: dict[str, Any]) -> Trial | None:
        """The trial that an attempt is of; a new one at the first."""
        key, of = event["trial"], event.get("of")
        if key in self._runs:
            return self._runs[key]
        if of is None:
            number = len(self.trials) + 1
            trial = Trial(key, number, event["values"], event.get("member", number), event.get("donor"))
            self.trials[key] = trial
        elif of in self.trials:
            origin = self.trials[of]
            trial = Trial(key, origin.number, event["values"], origin.member, seed=event["seed"])
            self.repeats.setdefault(of, {})[event["seed"]] = trial
        else:
            return None
        return self._runs.setdefault(key, trial)
