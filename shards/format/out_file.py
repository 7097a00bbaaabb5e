"""The file that --out names: looked at before any work, and written whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from shards.errors import DataError
from shards.format.whole_files import PARTIAL, write_whole


def require_place(out: Path) -> Path:
    """The file; DataError if no file can be there."""
    if out.is_dir() or not out.parent.is_dir():
        raise DataError(f"--out: {out} cannot be written: name a file in a folder that exists")
    return out


def write_out(out: Path, text: str) -> None:
    """Writes the file. DataError if it cannot be written; nothing is left behind then."""
    try:
        write_whole(out, text)
    except OSError as error:
        with contextlib.suppress(OSError):
            out.with_name(out.name + PARTIAL).unlink()
        raise DataError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
