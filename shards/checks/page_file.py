"""Where a page about a shard folder is written, and how: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from shards.format.out_file import require_place, write_out
from shards.reading.object_store import is_url


def page_place(shards: str, out: str | None, ending: str) -> Path:
    """`out`, or a file beside the folder; of a URL, here. DataError if no file can be there."""
    bare = shards.rstrip("/")
    folder = Path(bare.rpartition("/")[2]) if is_url(bare) else Path(bare).resolve()
    return require_place(Path(out) if out else folder.with_name(folder.name + ending))


def write_page(place: Path, text: str) -> None:
    """Writes it and says so. DataError if it cannot be written; nothing is left behind then."""
    write_out(place, text)
    print(f"{place}: {len(text) / 2**20:.1f} MiB")
