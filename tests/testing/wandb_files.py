"""What W&B's offline files hold."""

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
