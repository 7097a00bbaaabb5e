"""What a run leaves to read: metrics.jsonl and W&B (rank 0 writes), and the one progress line (the driver follows)."""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import secrets
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cluster.config.fields import Config, LogConfig
from cluster.tracking.worker_logs import WARNINGS, own_warning
from shards.format.whole_files import write_whole

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints.jsonl"  # what each took; apart, for when one has been written is not the same twice
WANDB_ID = "wandb_id.txt"
WANDB_LIMIT_S = 6.0  # for W&B to answer at the start of a run


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
    """Appends to metrics.jsonl and mirrors it to W&B. Rank 0 alone makes one."""

    def __init__(self, run: Path, config: Config) -> None:
        self._path = run / METRICS
        self._stages = config.stages
        self._wandb = _start_wandb(run, config)

    def rewind(self, stage: str, step: int) -> None:
        """Drops what a killed run logged of this stage after its last checkpoint, and of later stages."""
        if not self._path.is_file():
            return
        order = self._stages
        place, length = (order.index(stage), step), 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            record = next(_lines(line), None)
            if record is None or (order.index(record["stage"]), record["step"]) > place:
                break
            length += len(line)
        os.truncate(self._path, length)  # in place: whoever follows the file sees where the old lines end

    def write(self, record: dict[str, Any], file: str = METRICS) -> None:
        """One line; numbers that are not finite become null."""
        record = _finite(record)
        with self._path.with_name(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        if self._wandb is not None:
            stage = record["stage"]
            self._wandb.log({f"{stage}/{name}": value for name, value in _flat(record) if name != "stage"})

    def close(self) -> None:
        """Ends the W&B run."""
        if self._wandb is not None:
            self._wandb.finish()


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


def wandb_mode(log: LogConfig) -> str:
    """'online', 'offline' or 'disabled': 'auto' is online where a key is set."""
    if log.wandb != "auto":
        return log.wandb
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def _start_wandb(run: Path, config: Config) -> Any:
    """A W&B run whose id is kept in the run folder, so that a resumed run goes on in the same one; None if disabled."""
    mode = wandb_mode(config.log)
    if mode == "disabled":
        return None
    from cluster.config.options import to_dict

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    id_file = run / WANDB_ID
    if not id_file.is_file():
        write_whole(id_file, secrets.token_hex(4) + "\n")

    warn = logging.getLogger(__name__).warning
    if mode == "online" and (why := _unreachable(wandb.setup().settings.base_url)):
        warn(
            "W&B cannot be reached, the run is logged offline (wandb sync %s/wandb/offline-run-* sends it later): %s",
            run,
            why,
        )
        mode = "offline"
    settings = wandb.Settings(console="off", x_disable_stats=True, init_timeout=WANDB_LIMIT_S)
    try:
        return wandb.init(
            project=config.log.project, name=config.name, id=id_file.read_text().strip(), resume="allow", mode=mode,
            dir=str(run), config=to_dict(config), settings=settings,
        )  # fmt: skip
    except (wandb.errors.Error, OSError) as error:
        warn("W&B could not start and is left out: %s", " ".join(str(error).split())[:300])
        return None


def _unreachable(url: str) -> str:
    """Why nothing answers at a URL within WANDB_LIMIT_S; empty where something does, whatever it says.

    A start of W&B that fails cannot be followed by another one in the same process, so this is asked first.
    """
    found = [f"no answer from {url} within {WANDB_LIMIT_S:.0f} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=WANDB_LIMIT_S).close()
        except urllib.error.HTTPError:
            found[0] = ""
        except urllib.error.URLError as error:
            # W&B has certificates of its own to go by.
            found[0] = "" if isinstance(error.reason, ssl.SSLError) else f"{url}: {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            found[0] = f"{url}: {error}"
        else:
            found[0] = ""

    asking = threading.Thread(target=ask, name="W&B", daemon=True)  # looking up a name can take longer than any limit
    asking.start()
    asking.join(WANDB_LIMIT_S)
    return found[0]


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

    def _line(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if self._out.isatty() else ""
        self._out.write(f"{start}{text}{end}")
        self._unfinished = not end
        self._out.flush()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS, or M:SS below an hour."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
