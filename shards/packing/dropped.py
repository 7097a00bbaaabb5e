"""What a packing leaves out: named with its reason, counted, and too much of it ends the packing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from shards.errors import DataError
from shards.format.record import Source

MOST = 0.5  # share of the samples, unless --max-dropped says otherwise: more is left out than packed
LOST_IMAGE = "an image is missing or damaged"
NAMED = 5  # of the samples whose images turn out missing or damaged, so many are named on stderr

Lost = Sequence[str]  # a sample's name in the source, its image, the fault


def check_records(source: Source, records: int, most: float) -> None:
    """DataError where a source left out more than the share `most` of its samples; `records` are what is left."""
    dropped = sum(source.dropped.values())
    if dropped > most * (dropped + records):
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.dropped.items())
        raise DataError(_too_many(source, dropped, dropped + records, most, f"{reasons}; the first, {source.lost[0]}"))


def take_lost(source: Source, entries: Iterable[dict], records: int, most: float) -> list[Lost]:
    """What the tars with these entries have lost; DataError where it is more than the share `most` of all records."""
    entries = list(entries)
    lost = [sample for entry in entries for sample in entry.get("lost", ())]
    if not lost or len(lost) <= most * records and len(lost) < records:
        return lost
    name, image, fault = lost[0]
    first = f"the first, {name} ({image}: {fault})"
    if not any(entry["samples"] for entry in entries):
        raise DataError(f"{source.name}: none of {len(lost)} samples can be packed; {first}")
    raise DataError(_too_many(source, len(lost), records, most, f"{LOST_IMAGE}; {first}"))


def _too_many(source: Source, dropped: int, total: int, most: float, why: str) -> str:
    return (
        f"{source.name}: {dropped} of {total} samples cannot be packed, and --max-dropped {most:g} allows "
        f"{int(most * total)} ({why}): mend them, or give a higher --max-dropped; the same command goes on"
    )


def named(lost: Sequence[Lost]) -> Iterator[str]:
    """Lines for stderr on the first of them."""
    for name, image, fault in lost[:NAMED]:
        yield f"left out: {name} ({image}: {fault})"


def summary(source: Source, lost: Sequence[Lost]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(counts by reason, a row of name and reason for each sample that was left out)."""
    counts = Counter(source.dropped)
    if lost:
        counts[LOST_IMAGE] += len(lost)
    rows = [(name, reason) for name, _, reason in (line.partition(": ") for line in source.lost)]
    rows += [(name, f"{LOST_IMAGE} ({image}: {fault})") for name, image, fault in lost]
    return dict(counts), rows
