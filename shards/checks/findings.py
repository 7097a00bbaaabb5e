"""What `shards.check` says of captions, marks and sizes, beside the leaks of `shards.checks.leaks`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from shards.checks.leaks import RELATIONS, Audit, counted
from shards.format.manifest import KINDS, SPLITS
from shards.format.record import Kind, Record, Split
from shards.packing.contradictions import MARKED_UNCHANGED, find_contradictions
from shards.progress import Progress
from shards.reading.reader import Folder
from shards.wording.claims import plain
from shards.wording.denials import learn_denials

SHOWN = 6  # examples of a finding
SPREAD = 4  # sides of a picture that are so many times the median, or its part, are strange
RARE = 0.01  # share of the pairs below which a type of change is rare
SAME_CAPTION = 0.5  # share of the pairs of a kind that one caption may have


class Place(NamedTuple):
    """A sample in its folder. `number` counts within its kind and split."""

    folder: int
    split: str
    kind: str
    number: int


@dataclass(frozen=True)
class Finding:
    """One thing to look at. `wrong`: it makes scores or labels untrue; else it may be meant so.

    `examples` are groups of samples, by their numbers, each with a line of text.
    """

    wrong: bool
    what: str
    advice: str
    examples: Sequence[tuple[str, tuple[int, ...]]] = ()


@dataclass
class Records:
    """The samples of folders in the order in which `leaks.audit` numbers them."""

    places: list[Place]
    records: list[Record]
    classes: list[str]  # names that a manifest has


def read(folders: Sequence[Folder]) -> Records:
    """All records, without their pictures."""
    streams = [
        (number, split, kind, folder.stream(kind, split))
        for number, folder in enumerate(folders)
        for split in SPLITS
        for kind in KINDS
    ]
    places, records = [], []
    with Progress("reading captions", 0, sum(len(stream) for *_, stream in streams)) as progress:
        for number, split, kind, stream in streams:
            for i in range(len(stream)):
                found = stream.metadata(i)
                places.append(Place(number, split, kind, i))
                records.append(
                    Record(
                        cast(Kind, kind), cast(Split, split), stream.keys[i], {}, found["id"],
                        tuple(found.get("captions", ())),
                        found.get("changed"), found.get("change_type"), class_name=found.get("class_name"),
                    )
                )  # fmt: skip
                progress.update(1)
    return Records(places, records, [name for folder in folders for name in folder.manifest["classes"]])


def find(audit: Audit, read: Records) -> list[Finding]:
    """What was found, what is wrong first; copies within a split are `repeated`."""
    found = [*_leaks(audit), *_contradictions(read), *_opposite(audit, read)]
    found += [*_captions(read), *_types(read), *_classes(read), *_sizes(audit)]
    return sorted(found, key=lambda finding: not finding.wrong)


def _leaks(audit: Audit) -> Iterator[Finding]:
    groups = [(how, pictures) for leak, how, pictures in audit.findings() if leak]
    if groups:
        yield Finding(
            True,
            f"{counted(len(groups), 'group')} of pictures in more than one split",
            "Scores on them flatter. Put all pairs of one picture into one split, and pack again.",
            [(how, tuple(dict.fromkeys(picture.sample for picture in pictures))) for how, pictures in groups],
        )


def repeated(audit: Audit) -> Iterator[Finding]:
    """Copies within a split, by relation; `leaks.report` counts them too."""
    for relation in RELATIONS:
        groups = [pictures for leak, how, pictures in audit.findings() if not leak and how == relation]
        if groups:
            yield Finding(
                False,
                f"{counted(len(groups), 'group')} of {relation} within a split",
                "Pairs may share pictures by design; else remove the copies.",
                [(relation, tuple(dict.fromkeys(picture.sample for picture in group))) for group in groups],
            )


def _contradictions(read: Records) -> Iterator[Finding]:
    number: dict[tuple[str, str], int] = {
        (record.split, record.id): i for i, record in enumerate(read.records) if record.kind == "pair"
    }
    by_reason = defaultdict(list)
    for one in find_contradictions(read.records, learn_denials(read.records)):
        by_reason[one.reason].append((" | ".join(one.sentences), (number[one.split, one.id],)))
    for reason, examples in by_reason.items():
        wrong = "One of the two is wrong. Correct the mark or the caption, and pack again."
        if reason == MARKED_UNCHANGED:  # the rule knows many ways to say so, and people know more
            wrong += ' Or the caption says that nothing changed in unknown words: add "nothing has changed" beside it.'
        yield Finding(True, f"{counted(len(examples), 'pair')} {reason}", wrong, examples)


def _opposite(audit: Audit, read: Records) -> Iterator[Finding]:
    """Pairs of the same two pictures of which one is marked changed and the other unchanged."""
    pictures: dict[int, list[int]] = defaultdict(list)
    for picture, pixels in zip(audit.pictures, audit.same[1].tolist(), strict=True):
        pictures[picture.sample].append(pixels)
    together: dict[tuple[int, ...], dict[bool, int]] = defaultdict(dict)
    for i, record in enumerate(read.records):
        if record.kind == "pair" and record.changed is not None:
            together[tuple(pictures[i])].setdefault(record.changed, i)
            if len(set(pictures[i])) == 1 and record.changed:
                together[(-1, i)] = {True: i, False: i}
    twice = [marks for key, marks in together.items() if len(marks) == 2 and key[0] >= 0]
    if twice:
        yield Finding(
            True,
            f"{counted(len(twice), 'couple')} of pictures packed as changed and as unchanged",
            "Both cannot be true. Remove one, and pack again.",
            [("", tuple(dict.fromkeys(marks.values()))) for marks in twice],
        )
    equal = [marks[True] for key, marks in together.items() if key[0] < 0]
    if equal:
        yield Finding(
            True,
            f"{counted(len(equal), 'pair')} marked changed, with the same picture twice",
            "Before and after are equal pixel for pixel. Name the right second picture, and pack again.",
            [(" | ".join(read.records[i].captions), (i,)) for i in equal],
        )


def _captions(read: Records) -> Iterator[Finding]:
    short = [(text, (i,)) for i, record in enumerate(read.records) for text in record.captions if _words(text) == 1]
    if short:
        yield Finding(
            False,
            f"{counted(len(short), 'caption')} of one word",
            "A sentence teaches more: say what changed, and where.",
            short,
        )
    bare = [("", (i,)) for i, record in enumerate(read.records) if record.kind == "pair" and not record.captions]
    if bare:
        yield Finding(
            False,
            f"{counted(len(bare), 'pair')} without a caption",
            "Such pairs teach no words; in the test split they are not scored.",
            bare,
        )
    for changed in (True, None):
        pairs = [i for i, r in enumerate(read.records) if r.kind == "pair" and r.changed is changed and r.captions]
        counts = Counter(text for i in pairs for text in {plain(text) for text in read.records[i].captions})
        for text, count in counts.most_common(1):
            if len(pairs) > 1 and count > SAME_CAPTION * len(pairs):
                having = [(text, (i,)) for i in pairs if text in map(plain, read.records[i].captions)]
                marked = "marked changed" if changed else "without a mark"
                yield Finding(
                    False,
                    f"{count:,} of {counted(len(pairs), 'pair')} {marked} have one caption: {text}",
                    "A model that always says it scores well. Say what differs from pair to pair.",
                    having,
                )


def _types(read: Records) -> Iterator[Finding]:
    pairs = [i for i, record in enumerate(read.records) if record.kind == "pair"]
    marks = Counter(read.records[i].changed for i in pairs)
    if pairs and not marks[None] and not (marks[True] and marks[False]):
        missing = "unchanged" if marks[True] else "changed"
        yield Finding(
            False,
            f"no pair is marked {missing}",
            "A model can then not learn when to say that nothing changed." if marks[True] else "Add changed pairs.",
        )
    types = Counter(kind for i in pairs if (kind := read.records[i].change_type))
    for kind, count in sorted(types.items(), key=lambda item: item[1]):
        if count < RARE * types.total():
            having = [(kind, (i,)) for i in pairs if read.records[i].change_type == kind]
            yield Finding(
                False,
                f"type {kind} is rare: {count:,} of {counted(types.total(), 'pair')}",
                "Too few to learn from, and too few to score. Add some, or leave the type out.",
                having,
            )


def _classes(read: Records) -> Iterator[Finding]:
    empty = sorted(set(read.classes) - {record.class_name for record in read.records})
    if empty:
        named = ", ".join(empty[:SHOWN]) + (", ..." if len(empty) > SHOWN else "")
        what = f"{len(empty):,} {'class' if len(empty) == 1 else 'classes'} without a photo: {named}"
        yield Finding(False, what, "Add photos of them, or leave the classes out.")


def _sizes(audit: Audit) -> Iterator[Finding]:
    if not audit.pictures:
        return
    sizes = [audit.sizes[content] for content in audit.same[1].tolist()]
    middle = sorted(max(size) for size in sizes)[len(sizes) // 2]
    strange = {
        picture.sample: f"{width} x {height}"
        for picture, (width, height) in zip(audit.pictures, sizes, strict=True)
        if max(width, height) > SPREAD * middle
        or max(width, height) * SPREAD < middle
        or max(width, height) > SPREAD * min(width, height)
    }
    if strange:
        yield Finding(
            False,
            f"{counted(len(strange), 'sample')} with a picture of a strange size",
            f"The longer side is usually {middle} pixels. Small pictures show little; long ones are squeezed.",
            [(size, (sample,)) for sample, size in strange.items()],
        )


def _words(text: str) -> int:
    return len(text.split())
