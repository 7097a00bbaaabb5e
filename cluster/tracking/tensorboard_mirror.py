"""metrics.jsonl in TensorBoard, if --log.tensorboard asks for it: event files in the run folder.

A step there is the step of the run, those of earlier stages counted too. A resumed run tells TensorBoard which steps it
does again, and TensorBoard drops what it has of them: no step is there twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config.fields import Config
from cluster.tracking.shown_pairs import ShownPair

FOLDER = "tensorboard"

_warn = logging.getLogger(__name__).warning


class Board:
    """Writes event files. A disk that fails ends it and not the training."""

    def __init__(self, run: Path, config: Config) -> None:
        # Written at once, and not by the thread of SummaryWriter: whoever waits for one that has died waits for ever.
        from tensorboardX.event_file_writer import EventsWriter

        before, self._first = 0, dict[str, int]()  # by stage: the steps of the run before it
        for stage in config.stages:
            self._first[stage], before = before, before + config.stage(stage).steps
        self._writer: EventsWriter | None = None
        folder = run / FOLDER
        try:
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        except OSError as error:
            self._give_up(error)

    def rewind(self, stage: str, step: int) -> None:
        """What there is of later steps is dropped."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        start = SessionLog(status=SessionLog.START)
        self._write([Event(step=self._first[stage] + step + 1, session_log=start, wall_time=time.time())])

    def log(self, stage: str, step: int, values: Mapping[str, Any], pairs: Sequence[ShownPair] = ()) -> None:
        """Numbers by name, and captioned pairs with their images."""
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        found = [
            summary.scalar(name, float(value))
            for name, value in values.items()
            if isinstance(value, (int, float)) and name != f"{stage}/step"
        ]
        for pair in pairs:
            tag = f"{stage}/pairs/{pair.key}"
            said = f"{pair.caption}\n\nP(changed) {pair.changed_probability:.2f}; {' · '.join(pair.references)}"
            found += [summary.image(tag, pair.side_by_side, dataformats="HWC"), summary.text(tag, said)]
        place = self._first[stage] + step
        self._write([Event(step=place, summary=one, wall_time=time.time()) for one in found])

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, events: Sequence[Any]) -> None:
        if self._writer is None:
            return
        try:
            for event in events:
                self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        _warn(f"TensorBoard's files cannot be written ({error.strerror}), training goes on without them")


def open_board(run: Path, config: Config) -> Board | None:
    """None unless --log.tensorboard is set."""
    return Board(run, config) if config.log.tensorboard else None
