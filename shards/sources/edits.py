"""Pairs of images with one known change, made from the photos of any folder: two frames of a photo, one of them edited.

What is done to a photo is a pure function of (seed, bytes of the photo, number of the pair). The second image is always
a little moved and relit, so that no comparison of pixels tells a change. `shards.edits` has the kinds.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from shards.edits.captions import captions_for
from shards.edits.pictures import draw_pair, encoded, open_photo, possible_kinds
from shards.edits.plans import Plan, caption_generator, draw_kind, draw_plan
from shards.edits.things import Cutouts, names_of
from shards.errors import DataError, Unreachable
from shards.format.record import Record, Split
from shards.images.duplicates import groups
from shards.images.fingerprints import sketch
from shards.processes import pool
from shards.sources.layouts.layout import SPLITS, ImageFiles, Losses, Units, key_of
from shards.sources.layouts.photo_tree import photos_below
from shards.sources.layouts.splits import split_groups

PHOTOS_PER_UNIT = 64  # that one process looks at
_PHOTO_TIME_LIMIT = 60.0  # seconds for one (a large one takes a tenth)


@dataclass(frozen=True)
class EditsOptions:
    """What the data set depends on beside the photos.

    `pairs` counts those of train, val and test; photos are divided among the splits in these shares. `size` is (width,
    height) of the images in pixels. `cutouts` is a folder of PNGs to paste in place of shapes and glyphs; empty: none.
    """

    seed: int = 0
    pairs: tuple[int, int, int] = (2000, 200, 500)
    size: tuple[int, int] = (224, 224)
    cutouts: str = ""

    def __post_init__(self) -> None:
        if len(self.pairs) != 3 or min(self.pairs) < 0 or not sum(self.pairs):
            raise DataError(f"pairs must be three counts (train, val, test), none below 0, got {self.pairs}")
        if min(self.size) < 64 or max(self.size) > 2048 or not 0.5 <= self.size[0] / self.size[1] <= 2.0:
            raise DataError(
                f"size must be (width, height) within 64 to 2048 pixels, no side above twice the other: {self.size}"
            )
        if self.seed < 0:
            raise DataError(f"seed must be 0 or more, got {self.seed}")


class _Photo(NamedTuple):
    """A photo that was looked at. `digest`: SHA-256 of its bytes. Or the fault for which it is left out."""

    path: str
    digest: str = ""
    kinds: tuple[str, ...] = ()
    hash: int = 0
    thumbnail: np.ndarray = np.empty(0, np.int8)
    fault: str = ""


class EditsSource(ImageFiles):
    """Records and images of edited photos below `root`; options as in EditsOptions."""

    name = "edits"
    layout = "a folder of photos, in sub-folders or not"

    def __init__(self, root: str | Path, **options) -> None:
        self.options = EditsOptions(**options)
        self.cutouts = Cutouts(Path(self.options.cutouts).absolute()) if self.options.cutouts else None
        self._opened: tuple[str, Image.Image] | None = None
        self._made: tuple[str, tuple[bytes, bytes]] | None = None
        super().__init__(root)
        if self.cutouts is not None and not self.cutouts.folder.is_dir():
            raise DataError(f"--cutouts {self.cutouts.folder}: no such folder; name one of PNGs with transparency")

    def __getstate__(self) -> dict:
        return {"root": self.root, "options": self.options, "cutouts": self.cutouts}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.dropped, self.lost, self._opened, self._made = {}, [], None, None

    def describe(self) -> dict:
        """The options as plain data, for a manifest; digests of the photos' names and, by name, of the cut-outs."""
        names, _ = self._listed
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        cutouts = self.cutouts.digests() if self.cutouts else {}
        return asdict(self.options) | {"cutouts": cutouts, "names_sha256": digest}

    def records(self, workers: int = 1) -> list[Record]:
        """All pairs by split and photo. `workers` above 1 looks at photos in that many processes."""
        names, unread = self._listed
        losses = Losses()
        losses.dropped.update(unread.dropped)
        losses.lost += unread.lost
        photos = self._looked_at(names, workers, losses)
        self.leave_out(losses)
        if not photos:
            first = f"; the first that was looked at, {losses.lost[0]}" if losses.lost else ""
            raise DataError(f"{self.root} has no photos to edit: --root must be {self.layout}{first}")
        found = []
        units = Units()
        for split, of_split in self._divided(photos).items():
            each, more = divmod(self.options.pairs[SPLITS.index(split)], len(of_split))
            for place, photo in enumerate(of_split):
                for number in range(each + (place < more)):
                    found.append(self._record(photo, number, split, units.next_of(split)))
        return found

    @cached_property
    def _listed(self) -> tuple[list[str], Losses]:
        """The photos' paths, and what is none."""
        losses = Losses()
        return photos_below(self.root, losses), losses

    def image(self, image_id: str) -> bytes:
        """The JPEG of "before|after/KIND/NUMBER/SHA-256 of the photo/its path"; the last photo and pair are kept."""
        role, _, pair = image_id.partition("/")
        kind, number, digest, path = pair.split("/", 3)
        if self._made is None or self._made[0] != pair:
            if self._opened is None or self._opened[0] != digest:
                data = super().image(path)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise DataError("the photo was replaced since it was looked at")
                self._opened = digest, open_photo(data, self.options.size)
            plan = self._plan(digest, int(number), kind)
            images = draw_pair(self._opened[1], plan, self.options.size, self.cutouts)
            self._made = pair, (encoded(images[0]), encoded(images[1]))
        return self._made[1][role == "after"]

    def stamp(self, image_id: str) -> str:
        """As of the photo that an image is made from."""
        return super().stamp(image_id.split("/", 4)[4])

    def _plan(self, digest: str, number: int, kind: str) -> Plan:
        names, painted = names_of(self.cutouts), self.cutouts is None
        return draw_plan(self.options.seed, _number(digest), number, kind, names, painted)

    def _record(self, photo: _Photo, number: int, split: Split, unit: int) -> Record:
        kind = draw_kind(self.options.seed, _number(photo.digest), number, photo.kinds)
        plan = self._plan(photo.digest, number, kind)
        rng = caption_generator(self.options.seed, _number(photo.digest), number)
        name = f"{photo.path}//{number}"  # no path has // in it
        made = f"{kind}/{number}/{photo.digest}/{photo.path}"
        return Record(
            kind="pair",
            split=split,
            key=key_of(name),
            images={"before.jpg": f"before/{made}", "after.jpg": f"after/{made}"},
            id=name,
            captions=captions_for(plan.change(), rng),
            changed=kind != "none",
            change_type=kind,
            truth=plan.truth(self.options.size, self.cutouts),
            unit=unit,
        )

    def _looked_at(self, paths: list[str], workers: int, losses: Losses) -> list[_Photo]:
        """What can be used, each photo once, sorted by path; the others are noted."""
        chunks = [paths[start : start + PHOTOS_PER_UNIT] for start in range(0, len(paths), PHOTOS_PER_UNIT)]
        if workers > 1 and len(chunks) > 1:
            with pool(min(workers, len(chunks))) as processes:
                limit = _PHOTO_TIME_LIMIT * len(paths)
                futures = [processes.submit(_look, self, chunk) for chunk in chunks]
                parts = [future.result(timeout=limit) for future in futures]
        else:
            parts = [_look(self, chunk) for chunk in chunks]
        found: dict[str, _Photo] = {}
        for photo in (photo for part in parts for photo in part):
            if photo.fault:
                losses.add(photo.path, photo.fault)
            elif photo.digest in found:
                losses.add(photo.path, "the same photo again", found[photo.digest].path)
            else:
                found[photo.digest] = photo
        return list(found.values())

    def _divided(self, photos: list[_Photo]) -> dict[Split, list[_Photo]]:
        """The photos of each split that has pairs, near duplicates together, in the order of their digests.

        DataError where a split gets none.
        """
        shares = {split: pairs for split, pairs in zip(SPLITS, self.options.pairs, strict=True) if pairs}
        alike = groups(
            np.array([photo.hash for photo in photos], np.uint64), np.stack([photo.thumbnail for photo in photos])
        )
        members: dict[int, list[_Photo]] = {}
        for photo, group in zip(photos, alike.tolist(), strict=True):
            members.setdefault(group, []).append(photo)
        named = {min(photo.digest for photo in group): group for group in members.values()}
        splits = split_groups({name: len(group) for name, group in named.items()}, shares)
        found: dict[Split, list[_Photo]] = {split: [] for split in shares}
        for name, group in named.items():
            found[splits[name]] += group
        lacking = [split for split, of_split in found.items() if not of_split]
        if lacking:
            raise DataError(
                f"{self.root} has {len(named)} different photos, too few for {' and '.join(shares)}: add some, or give "
                f"--pairs with 0 for {lacking[0]}"
            )
        return {split: sorted(of_split, key=lambda photo: photo.digest) for split, of_split in found.items()}


def _number(digest: str) -> int:
    """What stands for a photo among the seeds of its pairs."""
    return int(digest[:16], 16)


def _look(source: EditsSource, paths: list[str]) -> list[_Photo]:
    """What is known of some photos, one by one."""
    return [_look_at(source, path) for path in paths]


def _look_at(source: EditsSource, path: str) -> _Photo:
    try:
        data = ImageFiles.image(source, path)
        photo = open_photo(data, source.options.size)
    except Unreachable:
        raise
    except DataError as error:
        return _Photo(path, fault=str(error))
    bits, thumbnail = sketch(photo)
    if thumbnail is None:
        return _Photo(path, fault="a picture with too little in it to be told from others")
    kinds = possible_kinds(photo, source.options.size, source.cutouts is None)
    return _Photo(path, hashlib.sha256(data).hexdigest(), kinds, bits, thumbnail)
