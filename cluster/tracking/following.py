"""The driver's progress line: it follows what the workers write into the run folder."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from cluster.config.fields import Config
from cluster.tracking import doing
from cluster.tracking.run_log import METRICS, RESTARTS, Follower, Tail, lines_of
from cluster.tracking.worker_logs import WARNINGS, own_warning
from shards.progress import LINE_EVERY, bar, line, say


class Progress:
    """Follows a run from the driver: a bar of its stage in a terminal, a line now and then elsewhere."""

    def __init__(self, run: Path, config: Config, out: TextIO | None = None, every: float = LINE_EVERY) -> None:
        self._run, self._config, self._out, self._every = run, config, out or sys.stderr, every
        self._log = Follower(run, _size(run / METRICS))
        self._restarts = Tail(run / RESTARTS, _size(run / RESTARTS))
        self._warnings, self._warned = Tail(run / WARNINGS, _size(run / WARNINGS)), set[str]()
        (run / doing.FILE).unlink(missing_ok=True)  # of workers that were killed
        self._shown = 0.0
        self._stage, self._first = "", (0, 0.0)  # the stage shown, and when its first step was seen
        self._bar: tqdm | None = None  # of the stage
        self._part: doing.Part | None = None  # shown, since when and from where on
        self._part_from = (0, 0.0, 0.0)
        self._part_bar: tqdm | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        (self._run / doing.FILE).unlink(missing_ok=True)  # of a part that was cut short
        for one in (self._part_bar, self._bar):
            if one is not None:
                one.close()

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self._read()
        self._read()

    def _read(self) -> None:
        for text in self._warnings.read().decode(errors="replace").splitlines():
            said = own_warning(text)
            if said and said not in self._warned:  # several workers may say the same
                self._warned.add(said)
                say(said, self._out)
        for record in lines_of(self._restarts.read()):
            say(record["line"], self._out)
        for record in self._log.read():
            self._show(record)
        self._show_part(doing.read(self._run))

    def _show(self, record: dict) -> None:
        stage, step = record["stage"], record["step"]
        steps = self._config.stage(stage).steps
        if "bad_sample" in record:
            bad = record["bad_sample"]
            say(f"{stage} {step}/{steps}: {bad['key']} is replaced, {bad['why']}", self._out)
            return
        if "validation" in record:
            scores = ", ".join(f"{k} {v:.1f}" for k, v in record["validation"].items() if isinstance(v, (int, float)))
            say(f"{stage} {step}/{steps}: validation {scores}", self._out)
            return
        now = time.monotonic()
        if stage != self._stage:
            self._first = (step, now)
            if self._bar is not None:
                self._bar.close()
            self._bar = bar(stage, step, steps, "step", self._out)
        elif self._bar is None and step < steps and now - self._shown < self._every:
            return
        self._stage, self._shown = stage, now
        losses = " ".join(f"{k} {v:.3f}" for k, v in record["loss"].items() if v is not None)
        samples = f"{record['samples_per_s'] or 0:.0f} samples/s"
        if self._bar is not None:
            self._bar.set_postfix_str(f"{losses}, {samples}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        seen = step - self._first[0]  # validations and checkpoints slow the mean, and are still to come
        rate = seen / (now - self._first[1]) if seen and now > self._first[1] else record["steps_per_s"]
        left = f", {clock((steps - step) / rate)} left" if rate else ""
        say(f"{stage} {step}/{steps}: {losses}, {samples}{left}", self._out)

    def _show_part(self, part: doing.Part | None) -> None:
        """What the workers are at between steps."""
        before, now = self._part, time.monotonic()
        if part is None or before is None or part.what != before.what or part.done < before.done:
            if self._part_bar is not None:
                self._part_bar.close()
            self._part_bar = part and bar(part.what, part.done, part.total, part.unit, self._out, stays=False)
            self._part_from = (part.done if part else 0, now, now)
        elif self._part_bar is not None:
            self._part_bar.update(part.done - self._part_bar.n)
        elif part != before and now - self._part_from[2] >= self._every:
            first, since, _ = self._part_from
            self._part_from = first, since, now
            say(line(part.what, first, part.done, part.total, part.unit, now - since), self._out)
        self._part = part


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS, or M:SS below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
