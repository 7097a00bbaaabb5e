"""What a run leaves to read: metrics.jsonl, which rank 0 writes and others follow, and its mirrors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config.fields import Config
from cluster.tracking.shown_pairs import ShownPair
from cluster.tracking.tensorboard_mirror import open_board
from cluster.tracking.wandb_mirror import open_mirror

METRICS = "metrics.jsonl"
PROVENANCE = "provenance.json"  # an entry each time the command was given; the driver writes it
SKIPPED = "skipped.jsonl"  # a line a step that was left out, with the samples of its batch
RESTARTS = "restarts.jsonl"  # a line each time that workers are started again
TIMES = ("samples_per_s", "steps_per_s", "data_wait", "memory", "seconds")  # of a line: what no two runs share
CHECKPOINTS = "checkpoints.jsonl"  # what each took; apart, for when one has been written is not the same twice


def read_metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl that are whole."""
    return list(lines_of((run / METRICS).read_bytes())) if (run / METRICS).is_file() else []


def read_without_times(run: Path) -> list[dict]:
    """`read_metrics` of what two runs of the same command share."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read_metrics(run)]


def lines_of(data: bytes) -> Iterator[dict]:
    """The objects in lines of JSON, without one that a kill has cut."""
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
        self._board = open_board(run, config)

    def rewind(self, stage: str, step: int) -> None:
        """Drops what a killed run logged of this stage after its last checkpoint, and of later stages."""
        place = (self._stages.index(stage), step)
        self._cut(self._path, place)
        self._cut(self._path.with_name(SKIPPED), place)
        self._length = _count(self._path)
        if self._board is not None:
            self._board.rewind(stage, step)

    def _cut(self, path: Path, place: tuple[int, int]) -> None:
        if not path.is_file():
            return
        length = 0
        for line in path.read_bytes().splitlines(keepends=True):
            record = next(lines_of(line), None)
            if record is None or (self._stages.index(record["stage"]), record["step"]) > place:
                break
            length += len(line)
        os.truncate(path, length)  # in place: whoever follows the file sees where the old lines end

    def write(
        self,
        record: dict[str, Any],
        file: str = METRICS,
        *,
        beside: Callable[[], Mapping[str, Any]] = dict,
        pairs: Callable[[], Sequence[ShownPair]] = tuple,
    ) -> None:
        """One line, of metrics.jsonl and so of its mirrors, or of another file; what is not finite becomes null.

        beside, pairs: what the mirrors show with it, values and captioned pairs; asked for if there is a mirror.
        """
        record = _finite(record)
        with self._path.with_name(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        if file != METRICS:
            return
        if self._mirror is not None or self._board is not None:
            stage, shown = record["stage"], pairs()
            values = {**dict(_values(record)), **beside()}
            if self._mirror is not None:
                self._mirror.log(self._length, values, stage, shown)
            if self._board is not None:
                self._board.log(stage, record["step"], values, shown)
        self._length += 1

    def summarise(self, values: Mapping[str, Any]) -> None:
        """What is known of the whole run at its end, for W&B."""
        if self._mirror is not None:
            self._mirror.summarise(values)

    def close(self) -> None:
        """Ends the mirrors."""
        if self._mirror is not None:
            self._mirror.close()
        if self._board is not None:
            self._board.close()


def _count(path: Path) -> int:
    """The whole lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _values(record: dict) -> Iterator[tuple[str, Any]]:
    """What mirrors call the values of a line: STAGE/NAME; a loss STAGE/loss/TASK/NAME, for tasks share names."""
    stage, task = record["stage"], record.get("task")
    for name, value in _flat(record):
        if name.startswith("loss/") and task != stage:
            name = f"loss/{task}/{name.removeprefix('loss/')}"
        if name != "stage":
            yield f"{stage}/{name}", value


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
        return list(lines_of(self._tail.read()))


def alignment_line(found: Mapping[str, Any]) -> str:
    """What `cluster.evaluation.alignment.summary` gives, in words."""
    told = found["text_alone"]
    alone = "" if told is None else f"a classifier of the text alone picks {told:.1f} %, "
    return (
        f"of {found['lists']} validation lists FDA picks the true caption in {found['fda']:.1f} %, {alone}"
        f"chance {found['chance']:.1f} %"
    )
