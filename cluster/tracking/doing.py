"""What a run is at between steps, such as captions of the validation split: a small file that the driver follows."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = ".doing.json"
EVERY_S = 1.0  # between two writes


@dataclass(frozen=True)
class Part:
    """How far something is: `done` of `total` units."""

    what: str
    done: int
    total: int
    unit: str = "pair"


class Doing:
    """Tells how far a part is, now and then. Told by all ranks; the first one writes."""

    def __init__(self, run: Path | None) -> None:
        """None: says nothing, as of another rank."""
        self._path = run / FILE if run is not None else None
        self._what, self._written = "", 0.0

    def at(self, what: str, done: int, total: int, unit: str = "pair") -> None:
        """So many units of a part are done; all of them: the part is over."""
        if self._path is None:
            return
        if done >= total:
            self._path.unlink(missing_ok=True)
            self._what = ""
            return
        now = time.monotonic()
        if what == self._what and now - self._written < EVERY_S:
            return
        self._what, self._written = what, now
        partial = self._path.with_name(f"{FILE}.partial")
        try:
            partial.write_text(json.dumps(asdict(Part(what, done, total, unit))) + "\n", encoding="utf-8")
            os.replace(partial, self._path)  # not synchronised: whoever reads an old one sees the next a second later
        except OSError:
            self._path = None  # a full disk ends what needs it, and not what only tells how far that is


def read(run: Path) -> Part | None:
    """The part that is under way; None: none is known."""
    try:
        return Part(**json.loads((run / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
