"""The page of `shards.check`: every finding with pictures of some of its samples, in one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shards.checks import show_page
from shards.checks.findings import SHOWN, Finding, Records
from shards.checks.leaks import Audit
from shards.format.record import ROLES, Record
from shards.reading.reader import Folder

GROUP = 4  # samples shown of one group
CAPTIONS = 2  # shown of one sample


def page(folders: Sequence[Folder], audit: Audit, read: Records, found: Sequence[Finding]) -> str:
    """The whole HTML document."""
    name = ", ".join(str(folder.location).rstrip("/").rpartition("/")[2] for folder in folders)
    wrong = sum(finding.wrong for finding in found)
    tiles = (
        (f"{len(read.records):,}", "samples"),
        (f"{len(audit.pictures):,}", "pictures"),
        (f"{wrong}", "kinds of fault"),
        (f"{len(found) - wrong}", "kinds of note"),
    )
    parts = [
        f"<h1>{show_page.safe(name)}</h1>",
        '<p class="lead">A fault makes labels or scores untrue. A note may be meant as it is.</p>',
        f'<div class="tiles">{"".join(show_page.tile(*one) for one in tiles)}</div>',
    ]
    for finding in found:
        parts += _section(folders, read, finding)
    if not found:
        parts.append('<p class="lead">Nothing was found.</p>')
    return show_page.page(f"{name}: check", "\n".join(parts))


def _section(folders: Sequence[Folder], read: Records, finding: Finding) -> Iterator[str]:
    kind, label = ("yes", "fault") if finding.wrong else ("", "note")
    yield f"<h2>{show_page.safe(finding.what)}</h2>"
    yield show_page.chips([(kind, label)])
    yield f'<p class="note">{show_page.safe(finding.advice)}</p>'
    if not finding.examples:
        return
    shown = finding.examples[:SHOWN]
    if len(finding.examples) > len(shown):
        yield f'<p class="note">{len(shown)} of {len(finding.examples):,} are shown.</p>'
    yield '<div class="cards">'
    for text, samples in shown:
        yield f'<article class="card">{"".join(_group(folders, read, text, samples))}</article>'
    yield "</div>"


def _group(folders: Sequence[Folder], read: Records, text: str, samples: Sequence[int]) -> Iterator[str]:
    if text:
        yield f'<h3 dir="auto">{show_page.safe(text)}</h3>'
    for sample in samples[:GROUP]:
        place, record = read.places[sample], read.records[sample]
        images = folders[place.folder].stream(place.kind, place.split).images(place.number)
        figures = [
            show_page.figure(images[role], role, f"{role} of {record.key}")
            for role in ROLES[place.kind]
            if role in images
        ]
        yield f'<div class="pair">{"".join(figures)}</div>' if place.kind == "pair" else "".join(figures)
        yield _facts(place.split, record)
    if len(samples) > GROUP:
        yield f'<p class="facts">and {len(samples) - GROUP:,} more</p>'


def _facts(split: str, record: Record) -> str:
    marks = {True: ["changed"], False: ["unchanged"], None: []}[record.changed]
    more = f" | {len(record.captions) - CAPTIONS} more" if len(record.captions) > CAPTIONS else ""
    said = " | ".join(record.captions[:CAPTIONS]) + more or record.class_name or ""
    line = " · ".join([split, *marks, record.id, *([said] if said else [])])
    return f'<p class="facts" dir="auto">{show_page.safe(line)}</p>'
