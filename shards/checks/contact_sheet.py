"""What `shards.show` does: a page of what a shard folder holds, and of samples drawn at random."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.checks import show_page
from shards.errors import DataError
from shards.format.manifest import KINDS, SPLITS
from shards.format.record import ROLES
from shards.format.schema import faults
from shards.order import permutation
from shards.progress import Progress
from shards.reading.reader import Folder, Stream

COUNT = 12  # samples of each kind and split
COMMON_WORDS = 40  # named in the overview
COMMON_CLASSES = 24
PLURAL = {"pair": "pairs", "photo": "photos", "class": "class photos"}

Streams = dict[tuple[str, str], Stream]  # by (kind, split); those that have samples


@dataclass
class Holdings:
    """What the records of a folder add up to."""

    changes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # type -> split -> pairs
    changed: Counter[bool | None] = field(default_factory=Counter)  # pairs
    classes: Counter[str] = field(default_factory=Counter)  # photos by class name
    captions: Counter[str] = field(default_factory=Counter)  # by split
    lengths: Counter[int] = field(default_factory=Counter)  # captions by their words
    words: Counter[str] = field(default_factory=Counter)
    negatives: Counter[str] = field(default_factory=Counter)  # sentences by kind

    def add(self, kind: str, split: str, record: dict) -> None:
        """Counts one sample."""
        if kind == "class":
            self.classes[record["class_name"]] += 1
            return
        if kind == "pair":
            self.changed[record.get("changed")] += 1
            self.changes[record.get("change_type") or "not known"][split] += 1
        for caption in record["captions"]:
            words = caption.lower().split()
            self.captions[split] += 1
            self.lengths[len(words)] += 1
            self.words.update(words)
        for name, sentences in record["negatives"].items():
            self.negatives[name] += len(sentences)


def show(
    location: str | Path, split: str | None = None, kind: str | None = None, count: int = COUNT, seed: int = 0
) -> str:
    """The contact sheet as HTML: `count` samples of each kind and split, or of those asked for, drawn by `seed`.

    Raises DataError where the folder is none, holds features, has no such samples, or has one that is damaged.
    """
    if count < 1:
        raise DataError(f"--count is {count}: it must be at least 1")
    if seed < 0:
        raise DataError(f"--seed is {seed}: it must be at least 0")
    folder = Folder.open(location)
    if "features" in folder.manifest:
        raise DataError(f"{folder.location} holds features, which cannot be seen: give the image folder they are of")
    streams = {(k, s): stream for k in KINDS for s in SPLITS if len(stream := folder.stream(k, s))}
    wanted = {key: stream for key, stream in streams.items() if kind in (None, key[0]) and split in (None, key[1])}
    if not wanted:
        there = ", ".join(f"{len(stream):,} {PLURAL[k]} of {s}" for (k, s), stream in streams.items()) or "nothing"
        asked = "".join(f" --{name} {value}" for name, value in (("kind", kind), ("split", split)) if value)
        raise DataError(f"{folder.location} has no samples{asked and f' for{asked}'}: it holds {there}")
    holdings = Holdings()
    with Progress(f"reading {folder.location}", 0, sum(map(len, streams.values()))) as progress:
        for (k, s), stream in streams.items():
            for i in range(len(stream)):
                holdings.add(k, s, _record(stream, k, i))
                progress.update(1)
    name = str(folder.location).rstrip("/").rpartition("/")[2]
    parts = [*_overview(name, folder, streams, holdings)]
    for (k, s), stream in wanted.items():
        draw = permutation.generator(seed, 0, 0, f"show {k} {s}")
        places = sorted(draw.choice(len(stream), min(count, len(stream)), replace=False).tolist())
        parts.append(f"<h2>{len(places):,} of {len(stream):,} {PLURAL[k]} of {s}</h2>")
        parts.append(f'<div class="cards{" small" if k == "class" else ""}">')
        parts += [_card(stream, k, i) for i in places]
        parts.append("</div>")
    return show_page.page(f"{name}: contact sheet", "\n".join(parts))


def _record(stream: Stream, kind: str, i: int) -> dict:
    """The json of sample i, checked."""
    record = stream.metadata(i)
    for fault in faults(record, kind, stream.folder.manifest["classes"]):
        raise stream.folder.damaged(f"{stream.folder.location}: member {stream.keys[i]}.json: {fault}")
    return record


def _overview(name: str, folder: Folder, streams: Streams, holdings: Holdings) -> Iterator[str]:
    """The head of the page."""
    contents = folder.manifest
    size = sum(shard["bytes"] for shard in contents["shards"]) / 2**20
    yield f"<h1>{show_page.safe(name)}</h1>"
    yield (
        f'<p class="lead">Source {show_page.safe(contents["source"])} · tars: {len(contents["shards"]):,}, '
        f"{size:,.1f} MiB · SHA-256 of the manifest: {folder.sha256()[:12]}…</p>"
    )
    yield f'<div class="tiles">{"".join(_tiles(contents, streams, holdings))}</div>'
    yield f'<div class="panels">{"".join(_panels(contents, streams, holdings))}</div>'


def _tiles(contents: dict, streams: Streams, holdings: Holdings) -> Iterator[str]:
    for kind in KINDS:
        count = sum(len(stream) for (k, _), stream in streams.items() if k == kind)
        if count:
            yield show_page.tile(f"{count:,}", PLURAL[kind])
    known = holdings.changed[True] + holdings.changed[False]
    if known:
        yield show_page.tile(f"{holdings.changed[True] / known:.0%}", "of pairs have a change")
    if holdings.captions:
        yield show_page.tile(f"{holdings.captions.total():,}", "captions")
        yield show_page.tile(f"{len(holdings.words):,}", "different words")
    if contents["tokenizer"]:
        yield show_page.tile(f"{contents['tokenizer']['size']:,}", f"tokens ({contents['tokenizer']['kind']})")
    else:
        yield show_page.tile("none", "tokenizer, for want of training captions")
    if contents["classes"]:
        yield show_page.tile(f"{len(contents['classes']):,}", "classes")


def _panels(contents: dict, streams: Streams, holdings: Holdings) -> Iterator[str]:
    splits = [split for split in SPLITS if any(s == split for _, s in streams)]
    kinds = [kind for kind in KINDS if any(k == kind for k, _ in streams)]
    rows: list[Sequence[str | int]] = [
        (PLURAL[kind], *(len(streams.get((kind, split), ())) for split in splits)) for kind in kinds
    ]
    if holdings.captions:
        rows.append(("captions", *(holdings.captions[split] for split in splits)))
    yield show_page.panel("Samples", show_page.table(["", *splits], rows))
    types = sorted(holdings.changes.items(), key=lambda item: -item[1].total())
    rows = [(name, *(counts[split] for split in splits)) for name, counts in types]
    yield show_page.panel("Change types", show_page.table(["", *splits], rows))
    if holdings.lengths:
        middle = sorted(holdings.lengths.elements())[holdings.captions.total() // 2]
        title = f"Caption length in words: median {middle}, longest {max(holdings.lengths)}"
        yield show_page.panel(title, show_page.histogram(holdings.lengths, "words"))
    yield show_page.panel(
        "Hard negatives: false sentences beside the true ones",
        show_page.table(["", "sentences"], sorted(holdings.negatives.items())),
    )
    dropped = sorted(contents["dropped"].items(), key=lambda item: (-item[1], item[0]))
    nothing = "" if dropped else '<p class="note">Nothing was left out.</p>'
    yield show_page.panel("Left out in packing", show_page.table(["reason", "samples"], dropped) + nothing)
    yield show_page.panel(*_most_common("words", holdings.words, COMMON_WORDS))
    yield show_page.panel(*_most_common("classes", holdings.classes, COMMON_CLASSES))


def _most_common(what: str, counts: Counter[str], limit: int) -> tuple[str, str]:
    """Title and content of a panel of names."""
    title = f"The {limit} most frequent of {len(counts):,} {what}" if len(counts) > limit else what.capitalize()
    return title, show_page.words(counts.most_common(limit))


def _card(stream: Stream, kind: str, i: int) -> str:
    """One sample as HTML."""
    key, record, images = stream.keys[i], _record(stream, kind, i), stream.images(i)
    named = [key, record["id"]] if record["id"] != key else [key]
    figures = [show_page.figure(images[role], role, f"{role} of {key}") for role in ROLES[kind] if role in images]
    parts = ['<div class="pair">', *figures, "</div>"] if kind == "pair" else figures
    if kind == "pair":
        flags = {True: ("yes", "changed"), False: ("no", "unchanged"), None: ("", "not known whether changed")}
        change = record.get("change_type")
        chips = [flags[record.get("changed")], *([("", change)] if change not in (None, "none") else [])]
        parts.append(show_page.chips(chips))
    if kind == "class":
        named.insert(0, f"class {record['class_id']}")
        parts.append(show_page.said([record["class_name"]]))
    else:
        parts += [show_page.said(record["captions"]), show_page.negatives(record["negatives"])]
    parts.append(f'<p class="facts">{show_page.safe(" · ".join(named))}</p>')
    return f'<article class="card">{"".join(parts)}</article>'
