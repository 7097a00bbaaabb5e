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
    state: str = RUNNING
    reason: str = ""

    @property
    def best(self) -> float | None:
        """The highest CIDEr so far, that of the checkpoint that is kept."""
        return max(self.scores.values(), default=None)

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
        self.trials: dict[str, Trial] = {}
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

    def start(self, key: str, values: dict[str, Any], member: int | None = None, donor: dict | None = None) -> None:
        """An attempt at a trial begins."""
        event = {"event": "start", "trial": key, "values": values}
        event |= {} if member is None else {"member": member}
        self._append(event | ({} if donor is None else {"donor": donor}))

    def score(self, key: str, step: int, cider: float) -> None:
        """A validation."""
        self._append({"event": "score", "trial": key, "step": step, "CIDEr": cider})

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
            number = len(self.trials) + 1
            trial = self.trials.setdefault(
                key, Trial(key, number, event["values"], event.get("member", number), event.get("donor"))
            )
            trial.starts.append(when)
            trial.ends.append(when)
            trial.state, trial.reason = RUNNING, ""
            return
        trial = self.trials.get(key)
        if trial is None:
            return  # its first line was cut off
        trial.ends[-1] = when
        if event["event"] == "score":
            trial.scores[event["step"]] = event["CIDEr"]
        else:
            trial.state, trial.reason = event["state"], event.get("reason", "")
