"""What `shards.check` does: images that occur twice, and what the splits have in common.

A sample's own images, before and after, never count against each other.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.errors import DataError
from shards.format.manifest import KINDS, SPLITS
from shards.format.schema import faults
from shards.images.duplicates import groups
from shards.images.fingerprints import Fingerprint, digest, fingerprint
from shards.progress import Progress
from shards.reading.prefetch import Prefetcher
from shards.reading.reader import Folder, Stream

RELATIONS = ("same bytes", "same pixels", "near duplicates")  # each holds where the one before it does
LISTED = 6  # names a line


class Picture(NamedTuple):
    """One image member. `sample` is unique among the folders; `id` is the source's own name of it."""

    folder: int
    split: int
    sample: int
    member: str
    id: str


@dataclass
class Audit:
    """What was found. `same` has an int array for each of RELATIONS: pictures of one number in it are so related.

    `plain` counts the different pictures that show too little for near duplicates to be told; `captions` each caption
    (in lower case, without a full stop) by split.
    """

    folders: list[str]
    pictures: list[Picture]
    same: list[np.ndarray]
    plain: int
    captions: dict[str, Counter]
    sizes: list[tuple[int, int]]  # (width, height) by the number in same[1]

    def findings(self) -> Iterator[tuple[bool, str, list[Picture]]]:
        """(whether it is a leak, the relation, the pictures) of each group that takes in more than one sample."""
        split = self._splits()
        crossing = [_spans_several(numbers, split) for numbers in self.same]
        together = defaultdict(list)
        for place, number in enumerate(self.same[-1].tolist()):
            together[number].append(place)
        for places in together.values():
            found = [self.pictures[place] for place in places]
            if len({picture.sample for picture in found}) < 2:
                continue
            if crossing[-1][places[0]]:  # named by the closest relation that crosses
                closest = (i for i, crosses in enumerate(crossing) if crosses[places].any())
                yield True, RELATIONS[next(closest)], found
            else:
                closest = (i for i, numbers in enumerate(self.same) if np.all(numbers[places] == numbers[places[0]]))
                yield False, RELATIONS[next(closest)], found

    def shared(self, split: int, other: int) -> list[int]:
        """How many pictures of `split` are in `other` too, by the closest relation."""
        of = self._splits()
        left = of == split
        counts = []
        for numbers in self.same:
            hit = left & np.isin(numbers, numbers[of == other])
            counts.append(int(hit.sum()))
            left &= ~hit
        return counts

    def _splits(self) -> np.ndarray:
        return np.array([picture.split for picture in self.pictures], dtype=np.int64)


def audit(paths: Sequence[str | Path]) -> Audit:
    """Reads every picture and caption of one or several shard folders; 1 to 2 KB of memory a picture.

    Raises DataError where a folder is none, holds features, is given twice, or has a picture that cannot be decoded.
    """
    folders = [Folder.open(path) for path in paths]
    for folder in folders:
        if "features" in folder.manifest:
            raise DataError(f"{folder.location} holds features: give the folder of images it was made from")
    if len({folder.sha256() for folder in folders}) < len(folders):
        raise DataError("the same folder is given twice (equal manifests): give each once")
    collection = _Collection()
    total = sum(shard["samples"] for folder in folders for shard in folder.manifest["shards"])
    with Progress("reading", 0, total) as progress:
        for number, folder in enumerate(folders):
            for split, split_name in enumerate(SPLITS):
                for kind in KINDS:
                    collection.add(number, split, kind, folder.stream(kind, split_name), progress)
    return collection.finish([str(folder.location) for folder in folders])


@dataclass
class _Collection:
    """Pictures and captions as they are read. A file that comes again is not decoded again."""

    pictures: list[Picture] = field(default_factory=list)
    file_of: list[int] = field(default_factory=list)  # by picture: a place in the lists below
    files: dict[bytes, int] = field(default_factory=dict)
    pixels: list[int] = field(default_factory=list)  # by file: a place in `contents`
    contents: dict[bytes, int] = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)
    thumbnails: list[np.ndarray | None] = field(default_factory=list)
    captions: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    sizes: list[tuple[int, int]] = field(default_factory=list)
    samples: int = 0

    def add(self, folder: int, split: int, kind: str, stream: Stream, progress: Progress) -> None:
        """All samples of a stream."""
        cores = len(os.sched_getaffinity(0))  # reading, decoding and hashing all release Python's lock
        read = _Reading(stream, kind, self.files)
        with Prefetcher(read, range(len(stream)), threads=cores, depth=8 * cores) as found:
            for place, (name, captions, images) in enumerate(found):
                for caption in captions:
                    self.captions[" ".join(caption.lower().split()).rstrip(" .")][split] += 1
                for suffix, (file, image) in images.items():
                    self.pictures.append(Picture(folder, split, self.samples, f"{stream.keys[place]}.{suffix}", name))
                    self.file_of.append(self._file(file, image))
                self.samples += 1
                progress.update(1)

    def _file(self, file: bytes, image: Fingerprint | None) -> int:
        if file not in self.files:
            assert image is not None
            if image.pixels not in self.contents:
                self.contents[image.pixels] = len(self.contents)
                self.hashes.append(image.hash)
                self.thumbnails.append(image.thumbnail)
                self.sizes.append(image.size)
            self.pixels.append(self.contents[image.pixels])
            self.files[file] = len(self.files)
        return self.files[file]

    def finish(self, folders: list[str]) -> Audit:
        """Near duplicates are looked for among the different contents that are not plain."""
        group = np.arange(len(self.contents))
        seen = np.array([i for i, thumbnail in enumerate(self.thumbnails) if thumbnail is not None], dtype=np.int64)
        if len(seen):
            found = groups(np.array(self.hashes, np.uint64)[seen], np.stack([self.thumbnails[i] for i in seen]))
            group[seen] = seen[np.unique(found, return_index=True)[1]][found]
        file_of = np.array(self.file_of, dtype=np.int64)
        pixels_of = np.array(self.pixels, dtype=np.int64)[file_of]
        same = [file_of, pixels_of, group[pixels_of]]
        return Audit(folders, self.pictures, same, len(self.contents) - len(seen), self.captions, self.sizes)


@dataclass
class _Reading:
    """What a thread does for a sample: its id, its captions and, by suffix, (digest, fingerprint) of its images.

    A fingerprint is None where the file is known already.
    """

    stream: Stream
    kind: str
    known: dict[bytes, int]

    def __call__(self, i: int) -> tuple[str, list[str], dict[str, tuple[bytes, Fingerprint | None]]]:
        record, members = self.stream.sample(i)
        folder, name = self.stream.folder, f"{self.stream.folder.location}: member {self.stream.keys[i]}"
        for fault in faults(record, self.kind, folder.manifest["classes"]):
            raise folder.damaged(f"{name}.json: {fault}")
        images = {}
        for suffix, data in members.items():
            file = digest(data)
            try:
                images[suffix] = file, None if file in self.known else fingerprint(data)
            except DataError as error:
                raise folder.damaged(f"{name}.{suffix}: {error}") from None
        return record["id"], record.get("captions", []), images


def _spans_several(numbers: np.ndarray, split: np.ndarray) -> np.ndarray:
    """For each picture whether those of its number are in more than one split."""
    mask = np.zeros(numbers.max(initial=-1) + 1, dtype=np.int64)
    np.bitwise_or.at(mask, numbers, 1 << split)
    return np.bitwise_count(mask)[numbers] > 1


def report(found: Audit, everything: bool) -> Iterator[str]:
    """The lines of the command: leaks, then notes where `everything` is asked for, then counts."""
    leaks: Counter[str] = Counter()
    notes: Counter[tuple[int, str]] = Counter()
    for is_leak, relation, pictures in found.findings():
        splits = sorted({picture.split for picture in pictures})
        if is_leak:
            leaks[relation] += 1
            yield f"leak, {relation} in {_and(SPLITS[split] for split in splits)}: {_names(found, pictures)}"
        else:
            notes[splits[0], relation] += 1
            if everything:
                yield f"note, {relation} within {SPLITS[splits[0]]}: {_names(found, pictures)}"
    if everything:
        for caption, counts in found.captions.items():
            if len(counts) > 1:
                where = ", ".join(f"{SPLITS[split]} {counts[split]}" for split in sorted(counts))
                yield f"note, the same caption in {where}: {_printable(caption)}"
    yield (
        f"{counted(len(found.pictures), 'picture')}, {len(np.unique(found.same[1])):,} different "
        f"({found.plain:,} too plain to tell near duplicates), {len(found.captions):,} different captions"
    )
    for split, relation in sorted(notes):
        yield f"note: within {SPLITS[split]}, {counted(notes[split, relation], 'group')} of {relation}"
    totals = Counter(picture.split for picture in found.pictures)
    for split, other in ((2, 0), (1, 0), (2, 1)):
        yield from _compared(found, split, other, totals)
    by_relation = ", ".join(f"{leaks[name]} of {name}" for name in RELATIONS)
    yield f"{counted(sum(leaks.values()), 'group')} of pictures in more than one split ({by_relation})"


def _compared(found: Audit, split: int, other: int, totals: Counter) -> Iterator[str]:
    """What two splits have in common; nothing where one of them is empty."""
    if totals[split] and totals[other]:
        shared = found.shared(split, other)
        by_relation = ", ".join(f"{count:,} {name}" for name, count in zip(RELATIONS, shared, strict=True))
        yield (
            f"{SPLITS[split]}: {sum(shared):,} of {totals[split]:,} pictures are in {SPLITS[other]} too ({by_relation})"
        )
    of = sum(counts[split] for counts in found.captions.values())
    if of and any(counts[other] for counts in found.captions.values()):
        too = sum(counts[split] for counts in found.captions.values() if counts[other])
        share = f"{100 * too / of:.1f} % of the {of:,} captions"
        yield f"note: {share} of {SPLITS[split]} are in {SPLITS[other]} word for word"


def _names(found: Audit, pictures: list[Picture]) -> str:
    """The pictures of a group, some of each split and the number of the others."""
    shown = []
    for split in sorted({picture.split for picture in pictures}):
        inside = [picture for picture in pictures if picture.split == split]
        for picture in inside[:LISTED]:
            folder = f"{found.folders[picture.folder]} " if len(found.folders) > 1 else ""
            shown.append(f"{folder}{SPLITS[split]} {picture.member} ({_printable(picture.id)})")
        if len(inside) > LISTED:
            shown.append(f"{len(inside) - LISTED} more of {SPLITS[split]}")
    return ", ".join(shown)


def _printable(text: str) -> str:
    """Ids and captions are other people's: nothing in them may steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _and(names: Iterator[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def counted(count: int, noun: str) -> str:
    """ "1 picture", "2,000 pictures"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
