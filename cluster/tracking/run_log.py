"""What a run leaves to read: metrics.jsonl and W&B (rank 0 writes), and the one progress line (the driver follows)."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from cluster.config.fields import Config
from cluster.tracking.wandb_mirror import open_mirror
from cluster.tracking.worker_logs import WARNINGS, own_warning

METRICS = "metrics.jsonl"
PROVENANCE = "provenance.json"  # an entry each time the command was given; the driver writes it
SKIPPED = "skipped.jsonl"  # a line a step that was left out, with the samples of its batch
RESTARTS = "restarts.jsonl"  # a line each time that workers are started again
CHECKPOINTS = "checkpoints.jsonl"  # what each took; apart, for when one has been written is not the same twice


def read_metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl that are whole."""
    return list(_lines((run / METRICS).read_bytes())) if (run / METRICS).is_file() else []


def _lines(data: bytes) -> Iterator[dict]:
    for line in data.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut by a kill
        if isinstance(record, dict):
            yield record


class RunLog:
    """Appends to metrics.jsonl, which it mirrors to W&B, and to files beside it. Rank 0 alone makes one."""

    def __init__(self, run: Path, config: Config) -> None:
        self._path = run / METRICS
        self._stages = config.stages
        self._length = _count(self._path)
        self._mirror = open_mirror(run, config, self._length)

    def rewind(self, stage: str, step: int) -> None:
        """Drops what a killed run logged of this stage after its last checkpoint, and of later stages."""
        place = (self._stages.index(stage), step)
        self._cut(self._path, place)
        self._cut(self._path.with_name(SKIPPED), place)
        self._length = _count(self._path)

    def _cut(self, path: Path, place: tuple[int, int]) -> None:
        if not path.is_file():
            return
        length = 0
        for line in path.read_bytes().splitlines(keepends=True):
            record = next(_lines(line), None)
            if record is None or (self._stages.index(record["stage"]), record["step"]) > place:
                break
            length += len(line)
        os.truncate(path, length)  # in place: whoever follows the file sees where the old lines end

    def write(self, record: dict[str, Any], file: str = METRICS) -> None:
        """One line, of metrics.jsonl and so of W&B, or of another file; numbers that are not finite become null."""
        record = _finite(record)
        with self._path.with_name(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        if file != METRICS:
            return
        if self._mirror is not None:
            stage = record["stage"]
            values = {f"{stage}/{name}": value for name, value in _flat(record) if name != "stage"}
            self._mirror.log(self._length, values)
        self._length += 1

    def close(self) -> None:
        """Ends the W&B run."""
        if self._mirror is not None:
            self._mirror.close()


def _count(path: Path) -> int:
    """The whole lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(record: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


class Tail:
    """Reads what is added to a file of lines while others write it; what they cut off is written anew."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._offset = path, offset

    def read(self) -> bytes:
        """The whole lines since the last call."""
        try:
            with self._path.open("rb") as file:
                self._offset = min(self._offset, os.fstat(file.fileno()).st_size)
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return b""
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole


class Follower:
    """Reads what is added to metrics.jsonl while a run writes it; a run that is resumed cuts off what it will redo."""

    def __init__(self, run: Path, offset: int = 0) -> None:
        self._tail = Tail(run / METRICS, offset)

    def read(self) -> list[dict]:
        """The whole lines since the last call."""
        return list(_lines(self._tail.read()))


class Progress:
    """Follows metrics.jsonl from the driver and shows one line: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, run: Path, config: Config, out: TextIO = sys.stderr, every: float = 15.0) -> None:
        self._config, self._out, self._every = config, out, every
        self._log = Follower(run, _size(run / METRICS))
        self._restarts = Tail(run / RESTARTS, _size(run / RESTARTS))
        self._warnings, self._warned = Tail(run / WARNINGS, _size(run / WARNINGS)), set[str]()
        self._shown = 0.0
        self._stage, self._first = "", (0, 0.0)  # the stage shown, and when its first step was seen
        self._unfinished = False  # the line on the terminal may be overwritten
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        if self._unfinished:
            self._out.write("\n")

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self._read()
        self._read()

    def _read(self) -> None:
        for line in self._warnings.read().decode(errors="replace").splitlines():
            said = own_warning(line)
            if said and said not in self._warned:  # several workers may say the same
                self._warned.add(said)
                self._line(said, end="\n")
        for record in _lines(self._restarts.read()):
            self._line(record["line"], end="\n")
        for record in self._log.read():
            self._show(record)

    def _show(self, record: dict) -> None:
        stage, step = record["stage"], record["step"]
        steps = self._config.stage(stage).steps
        terminal = self._out.isatty()
        if "bad_sample" in record:
            bad = record["bad_sample"]
            self._line(f"{stage} {step}/{steps}: {bad['key']} is replaced, {bad['why']}", end="\n")
            return
        if "validation" in record:
            scores = ", ".join(f"{k} {v:.1f}" for k, v in record["validation"].items() if isinstance(v, (int, float)))
            self._line(f"{stage} {step}/{steps}: validation {scores}", end="\n")
            return
        now = time.monotonic()
        due = 0.2 if terminal else self._every
        if stage == self._stage and step < steps and now - self._shown < due:
            return
        if stage != self._stage:
            self._first = (step, now)
        self._stage, self._shown = stage, now
        losses = " ".join(f"{k} {v:.3f}" for k, v in record["loss"].items() if v is not None)
        seen = step - self._first[0]  # validations and checkpoints slow the mean, and are still to come
        rate = seen / (now - self._first[1]) if seen and now > self._first[1] else record["steps_per_s"]
        left = (steps - step) / rate if rate else None
        eta = "" if left is None else f", {clock(left)} left"
        filled = 20 * step // steps
        bar = f"[{'#' * filled}{'.' * (20 - filled)}] " if terminal else ""
        text = f"{stage} {bar}{step}/{steps}: {losses}, {record['samples_per_s'] or 0:.0f} samples/s{eta}"
        self._line(text, end="\n" if step == steps or not terminal else "")
        if "alignment" in record:
            self._line(f"{stage} {step}/{steps}: {alignment_line(record['alignment'])}", end="\n")

    def _line(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if self._out.isatty() else ""
        self._out.write(f"{start}{text}{end}")
        self._unfinished = not end
        self._out.flush()


def alignment_line(found: Mapping[str, Any]) -> str:
    """What `cluster.evaluation.alignment.summary` gives, in words."""
    told = found["text_alone"]
    alone = "" if told is None else f"a classifier of the text alone picks {told:.1f} %, "
    return (
        f"of {found['lists']} validation lists FDA picks the true caption in {found['fda']:.1f} %, {alone}"
        f"chance {found['chance']:.1f} %"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS, or M:SS below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
