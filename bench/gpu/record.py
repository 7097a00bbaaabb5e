"""What a part finds: one JSON file, written whole at every result, so that a part that is killed has lost little."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.format.whole_files import write_whole

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Record:
    """The results of one part, and what it is told: where, on what, how large, for how long.

    out: folder of the JSON files. work: folder of data and runs, which later commands on this machine find again.
    """

    part: str
    out: Path
    work: Path
    device: str
    small: bool
    seconds: float
    on: dict[str, str] = field(default_factory=dict)  # card, torch, date, commit
    results: dict[str, Any] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)  # what there was no time for, or no reason to

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds of this part's share that are left."""
        return self._end - time.monotonic()

    def fits(self, name: str, seconds: float) -> bool:
        """Whether so many seconds are left; where they are not, it is noted and said."""
        if self.left >= seconds:
            self.not_run.pop(name, None)
            return True
        self.skip(name, "time")
        return False

    def skip(self, name: str, why: str) -> None:
        """Notes that something was not run."""
        self.not_run[name] = why
        self.say(f"{name}: not run: {why}")
        self.write()

    def put(self, name: str, value: Any, text: str = "") -> None:
        """A result, kept at once; `text` is its line on the screen."""
        self.results[name] = value
        self.say(f"{name}: {text or json.dumps(value)}")
        self.write()

    def check(self, name: str, passed: bool, text: str, **details: Any) -> None:
        """Whether something is as it has to be."""
        self.results.setdefault("checks", {})[name] = {"passed": bool(passed), "text": text, **details}
        self.say(f"{'ok  ' if passed else 'FAIL'} {name}: {text}")
        self.write()

    def attempt(self, name: str, seconds: float, measure: Callable[[], None]) -> None:
        """Does one piece of the part where it fits; what it raises is a failed check, and the rest goes on."""
        if not self.fits(name, seconds):
            return
        try:
            measure()
        except Exception as error:  # whatever it is: the others are to be heard
            self.check(name, False, one_line(error))

    def say(self, text: str) -> None:
        """A short line, at once."""
        print(f"{self.part}: {text}", flush=True)

    def write(self) -> None:
        """The file as it stands."""
        found = {"part": self.part, "device": self.device, "small": self.small, "status": "running", "on": self.on}
        write_json(self.out / f"{self.part}.json", found | {"results": self.results, "not_run": self.not_run})

    def earlier(self) -> dict[str, Any]:
        """The results of an earlier command in the same folder, of the same kind of device and sizes; else nothing."""
        found = read_json(self.out / f"{self.part}.json")
        same = found.get("device") == self.device and found.get("small") == self.small
        return found.get("results", {}) if same else {}


def one_line(error: BaseException | str) -> str:
    """An error in at most 300 characters."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, str) else f"{type(error).__name__}: {text}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where there is no whole file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all."""
    write_whole(path, json.dumps(value, indent=1) + "\n")
