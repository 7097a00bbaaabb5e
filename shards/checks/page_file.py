"""Where a page about a shard folder is written, and how: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from shards.errors import DataError
from shards.format.whole_files import PARTIAL, write_whole
from shards.reading.object_store import is_url


def page_place(shards: str, out: str | None, ending: str) -> Path:
    """`out`, or a file beside the folder; of a URL, here. DataError if no file can be there."""
    bare = shards.rstrip("/")
    folder = Path(bare.rpartition("/")[2]) if is_url(bare) else Path(bare).resolve()
    place = Path(out) if out else folder.with_name(folder.name + ending)
    if place.is_dir() or not place.parent.is_dir():
        raise DataError(f"--out: {place} cannot be written: name a file in a folder that exists")
    return place


def write_page(place: Path, text: str) -> None:
    """Writes it and says so. DataError if it cannot be written; nothing is left behind then."""
    try:
        write_whole(place, text)
    except OSError as error:
        place.with_name(place.name + PARTIAL).unlink(missing_ok=True)
        raise DataError(f"{place} cannot be written ({error.strerror}): choose another --out") from None
    print(f"{place}: {len(text) / 2**20:.1f} MiB")
