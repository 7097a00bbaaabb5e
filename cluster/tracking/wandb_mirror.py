"""metrics.jsonl in W&B: a mirror that can fail, stall or be out of reach without a word from the training.

A line's number in metrics.jsonl is its step in W&B. A resumed run repeats steps, and their lines come out as before:
those that W&B has are not sent again.
"""

from __future__ import annotations

import http.client
import logging
import os
import queue
import secrets
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cluster.config.fields import Config, LogConfig
from cluster.tracking.shown_pairs import ShownPair
from shards.format.whole_files import write_whole

WANDB_ID, WANDB_SENT = "wandb_id.txt", "wandb_sent.txt"  # the id of the run there; how many lines it has at least
WANDB_LIMIT_S = 6.0  # for W&B to answer at the start of a run
FINISH_LIMIT_S = 60.0  # for what is left to be sent at the end; less where other workers wait for less
WAITING_LINES = 10_000  # that are held for a W&B that does not take them
_DATA_ELSEWHERE = "WANDB_DATA_DIR" in os.environ

_warn = logging.getLogger(__name__).warning


class Mirror:
    """A W&B run that lines are handed to. A thread of its own talks to W&B, so nobody waits for it."""

    def __init__(self, run: Any, folder: Path, lines: int, limit_s: float) -> None:
        """`lines`: of metrics.jsonl that are there already; `limit_s`: for `close`."""
        self._run, self._folder, self._limit_s = run, folder, limit_s
        self._sent = max(lines, _read_count(folder / WANDB_SENT))
        if lines:  # they may be cut off: whoever comes next has to know that W&B has them
            write_whole(folder / WANDB_SENT, f"{self._sent}\n")
        self._failed, self._why = 0, ""
        # (line, values, stage, captioned pairs); without a line: of the summary
        self._waiting: queue.Queue[tuple[int | None, dict[str, Any], str, Sequence[ShownPair]] | None]
        self._waiting = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._send, name="W&B", daemon=True)
        self._thread.start()

    def log(self, line: int, values: dict[str, Any], stage: str = "", pairs: Sequence[ShownPair] = ()) -> None:
        """Sends the line of this number, and a table of captioned pairs of a stage, unless W&B has it."""
        if line < self._sent:
            return
        self._sent = line + 1
        self._hand_over((line, values, stage, pairs))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Sends what is known of the whole run."""
        self._hand_over((None, dict(values), "", ()))

    def _hand_over(self, item: tuple[int | None, dict[str, Any], str, Sequence[ShownPair]]) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._note("it takes no more lines")

    def close(self) -> None:
        """Ends the run, after a limited wait for what is left; says how many lines did not arrive."""
        try:
            self._waiting.put(None, timeout=self._limit_s)
            self._thread.join(self._limit_s)
        except queue.Full:
            pass  # said below, for the thread lives
        if self._thread.is_alive():
            _warn(
                f"W&B did not end within {self._limit_s:.0f} s, what is left of the run lies in {self._folder}/wandb "
                f"(wandb sync sends it)"
            )
        if self._failed:
            _warn(f"{self._failed} lines of metrics.jsonl did not reach W&B: {self._why}")

    def _send(self) -> None:
        import wandb

        while (item := self._waiting.get()) is not None:
            line, values, stage, pairs = item
            try:
                if line is None:
                    self._run.summary.update(values)
                else:
                    shown = {f"{stage}/pairs": _table(pairs)} if pairs else {}
                    self._run.log(values | shown, step=line, commit=True)
            except Exception as error:  # whatever it is, training does not end because its mirror breaks
                self._note(" ".join(str(error).split())[:300] or type(error).__name__)
        try:
            self._run.finish()
            wandb.teardown()  # or its process, ended with ours, would take with it what it has not written yet
        except Exception as error:
            _warn(f"W&B could not end the run: {' '.join(str(error).split())[:300]}")

    def _note(self, why: str) -> None:
        self._failed, self._why = self._failed + 1, why
        if self._failed == 1:
            _warn(f"a line of metrics.jsonl did not reach W&B, training goes on: {why}")


def _table(pairs: Sequence[ShownPair]) -> Any:
    import wandb

    columns: list[str | int] = ["before", "after", "caption", "P(changed)", "references", "key"]
    rows = [
        [wandb.Image(one.before), wandb.Image(one.after), one.caption, one.changed_probability,
         " | ".join(one.references), one.key]
        for one in pairs
    ]  # fmt: skip
    return wandb.Table(columns=columns, data=rows)


def _read_count(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def wandb_mode(log: LogConfig) -> Literal["online", "offline", "disabled"]:
    """'online', 'offline' or 'disabled': 'auto' is online where a key is set."""
    if log.wandb != "auto":
        return log.wandb
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def open_mirror(run: Path, config: Config, lines: int) -> Mirror | None:
    """A W&B run whose id is kept in the run folder, so that a resumed run goes on in the same one; None if disabled.

    `lines`: of metrics.jsonl so far.
    """
    mode = wandb_mode(config.log)
    if mode == "disabled":
        return None
    from cluster.config.options import to_dict

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    if not _DATA_ELSEWHERE:  # images that `wandb sync` will send: with the run, and not in a home folder
        os.environ["WANDB_DATA_DIR"] = str(run / "wandb")
    import wandb

    id_file = run / WANDB_ID
    if not id_file.is_file():
        write_whole(id_file, secrets.token_hex(4) + "\n")
    if mode == "online" and (why := _unreachable(wandb.setup().settings.base_url)):
        _warn(
            "W&B cannot be reached, the run is logged offline (wandb sync %s/wandb/offline-run-* sends it later): %s",
            run,
            why,
        )
        mode = "offline"
    limit_s = min(FINISH_LIMIT_S, config.cluster.timeout_s / 4)
    settings = wandb.Settings(
        console="off", x_disable_stats=True, init_timeout=WANDB_LIMIT_S, finish_timeout=limit_s / 2
    )
    try:
        started = wandb.init(
            project=config.log.project, name=config.name, id=id_file.read_text().strip(), resume="allow", mode=mode,
            dir=str(run), config=to_dict(config), settings=settings,
        )  # fmt: skip
    except (wandb.errors.Error, OSError) as error:
        _warn("W&B could not start and is left out: %s", " ".join(str(error).split())[:300])
        return None
    return Mirror(started, run, lines, limit_s)


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
