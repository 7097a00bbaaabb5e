"""What W&B's offline files hold, and the event files of TensorBoard."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def history(run: Path) -> list[dict]:
    """What W&B has of a run, from its offline files in the order in which they would be sent."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        data, place = path.read_bytes(), 7  # behind the header; LevelDB's log format: blocks of 32 KiB
        whole = b""
        while place + 7 <= len(data):
            left = 32768 - place % 32768
            if left < 7:
                place += left
                continue
            length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # a whole record, or the last part of one
                record = wandb_internal_pb2.Record()
                record.ParseFromString(whole)
                whole = b""
                if record.WhichOneof("record_type") == "history":
                    found.append(
                        {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                    )
    return found


def shown_by_tensorboard(run: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Tag -> (step, number; None of an image or a text), by the rules of TensorBoard's reader.

    Files in the order of their names; from a session's start on, what earlier ones have of its steps is dropped.
    """
    from tensorboardX.proto import event_pb2

    found: dict[str, list[tuple[int, float | None]]] = {}
    for path in sorted((run / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # TFRecord: length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START:
                found = {tag: [one for one in of if one[0] < event.step] for tag, of in found.items()}
            for value in event.summary.value:
                number = value.simple_value if value.HasField("simple_value") else None
                found.setdefault(value.tag, []).append((event.step, number))
    return found
