"""The embedded data set as a source: scenes of blocks in the manner of CLEVR-Change, made from a seed alone."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from shards.blocks.captions import CLASS_NAMES, captions_for, photo_captions
from shards.blocks.renderer import render
from shards.blocks.scenes import IMAGES, REACH, Scene, Triple, make_class_scene, make_triple
from shards.blocks.visibility import object_picture
from shards.errors import DataError
from shards.format.record import Record, Split
from shards.images import masks
from shards.processes import pool

SPLITS: tuple[Split, ...] = ("train", "val", "test")
OFFICIAL_PAIRINGS = (("before", "after"), ("before", "distractor"))
TRAIN_PAIRINGS = (*OFFICIAL_PAIRINGS, ("after", "distractor"), ("distractor", "before"))
SCENES_PER_UNIT = 100
CLASS_ROUNDS_PER_UNIT = 4  # photos of every class that go into one unit
VAL_CLASS_PHOTOS = 2
MOST_CAMERA = 2.0  # moved twice by that, nearer along every axis, it still stands beside the square of the objects
JPEG_QUALITY = 92
# Scenes for final figures alone: no choice is read off them. They are numbered beyond every split's, whatever the seed.
HOLDOUT, HOLDOUT_SCENES = "holdout", 900
# Scene numbers of these start far apart, so that asking for more of one leaves the others as they are.
_DRAWN = (*SPLITS, HOLDOUT)
_SPLIT_STRIDE = 10_000_000
_CAPTION_STREAM, _PHOTO_STREAM = 11, 12
_CACHED_IMAGES = 64
_UNIT_TIME_LIMIT = 600.0  # seconds for the scenes of one unit (they take less than one)


@dataclass(frozen=True)
class BlocksOptions:
    """Everything that decides what the data set holds.

    `scenes` counts train, val and test scenes; `size` is (width, height) of the images in pixels, `supersample` the
    rays a pixel along each axis; `relational` the share of references that use a relation to another object;
    `class_photos` the single-object photos of each of the 96 classes in the train split; `camera` by how much the
    camera's place varies along each axis in the train split, REACH in the others.
    """

    seed: int = 0
    scenes: tuple[int, int, int] = (4000, 250, 500)
    size: tuple[int, int] = (336, 224)
    supersample: int = 1
    relational: float = 0.0
    class_photos: int = 40
    camera: float = REACH

    def __post_init__(self) -> None:
        if len(self.scenes) != 3 or min(self.scenes) < 0 or max(self.scenes) >= _SPLIT_STRIDE:
            raise DataError(f"scenes must be three counts (train, val, test) of 0 or more, got {self.scenes}")
        if min(self.size) < 16 or max(self.size) > 4096:
            raise DataError(f"size must be (width, height) within 16 to 4096 pixels, got {self.size}")
        if not 0.5 <= self.size[0] / self.size[1] <= 4.0:
            raise DataError(f"size must have a width between half and four times its height, got {self.size}")
        if not 1 <= self.supersample <= 16:
            raise DataError(f"supersample must be within 1 to 16, got {self.supersample}")
        if not 0.0 <= self.relational <= 1.0:
            raise DataError(f"relational is a share within 0 to 1, got {self.relational}")
        if not 0.0 <= self.camera <= MOST_CAMERA:
            raise DataError(f"camera must be within 0 to {MOST_CAMERA:g}, got {self.camera}")
        if self.seed < 0 or self.class_photos < 0:
            raise DataError(f"seed and class_photos must be 0 or more, got {self.seed} and {self.class_photos}")

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[0] / self.size[1]

    def camera_of(self, split: str) -> float:
        """By how much the camera's place varies along each axis."""
        return self.camera if split == "train" else REACH


class BlocksSource:
    """Records and images of the blocks data set; options as in BlocksOptions."""

    name = "blocks"

    def __init__(self, **options) -> None:
        self.options = BlocksOptions(**options)
        self.dropped: dict[str, int] = {}  # nothing: every scene that is drawn is kept
        self.lost: list[str] = []
        self._images: OrderedDict[str, bytes] = OrderedDict()

    def __getstate__(self) -> dict:
        return {"options": self.options}

    def __setstate__(self, state: dict) -> None:
        self.options = state["options"]
        self.dropped = {}
        self.lost = []
        self._images = OrderedDict()

    def describe(self) -> dict:
        """The options as plain data, for a manifest."""
        return asdict(self.options)

    def classes(self) -> list[str]:
        """The 96 class names, "large red metal cube" and so on, by class id."""
        return list(CLASS_NAMES)

    def records(self, workers: int = 1) -> list[Record]:
        """All records. `workers` above 1 makes the scenes in that many processes; the result is the same."""
        units = [
            (self.options, split, start, min(start + SCENES_PER_UNIT, count))
            for split, count in self._counts().items()
            for start in range(0, count, SCENES_PER_UNIT)
        ]
        if workers > 1 and len(units) > 1:
            with pool(min(workers, len(units))) as processes:
                futures = [processes.submit(_unit_records, *unit) for unit in units]
                parts = [future.result(timeout=_UNIT_TIME_LIMIT * (1 + len(units) / workers)) for future in futures]
        else:
            parts = [_unit_records(*unit) for unit in units]
        found = [record for part in parts for record in part]
        found += _class_records("train", self.options.class_photos)
        found += _class_records("val", VAL_CLASS_PHOTOS if self.options.class_photos and self.options.scenes[1] else 0)
        return found

    def _counts(self) -> dict[str, int]:
        """Scenes to draw, by what they are for."""
        return dict(zip(SPLITS, self.options.scenes, strict=True))

    def image(self, image_id: str) -> bytes:
        """The JPEG of "SPLIT-NUMBER/before|after|distractor" or "class-SPLIT/CLASS/NUMBER"; the last ones are kept."""
        if image_id in self._images:
            self._images.move_to_end(image_id)
            return self._images[image_id]
        width, height = self.options.size
        pixels = render(self.scene(image_id), width, height, self.options.supersample)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        self._images[image_id] = buffer.getvalue()
        if len(self._images) > _CACHED_IMAGES:
            self._images.popitem(last=False)
        return buffer.getvalue()

    def scene(self, image_id: str) -> Scene:
        """The scene that an image id names."""
        parts = image_id.split("/")
        if len(parts) == 2:
            split, _, number = parts[0].partition("-")
            if split in _DRAWN and number.isdecimal() and parts[1] in IMAGES:
                return _triple(self.options, split, int(number)).scene(parts[1])
        if len(parts) == 3:
            split = parts[0].removeprefix("class-")
            known = parts[1].isdecimal() and int(parts[1]) < len(CLASS_NAMES)
            if split in SPLITS and known and parts[2].isdecimal():
                index = scene_index(split, int(parts[2]))
                camera = self.options.camera_of(split)
                return make_class_scene(self.options.seed, int(parts[1]), index, self.options.aspect, camera)
        raise DataError(f"blocks has no image {image_id!r}; ids come from its records")


class BlocksHoldout(BlocksSource):
    """HOLDOUT_SCENES scenes, two pairs each, that are in no split of `BlocksSource` with any options.

    Of the options, those of the look and the seed matter. In a shard folder these scenes are its test split.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options | {"scenes": (0, 0, 0), "class_photos": 0, "camera": REACH})

    def describe(self) -> dict:
        """The options as plain data, for a manifest, and how many scenes are held out."""
        return super().describe() | {HOLDOUT: HOLDOUT_SCENES}

    def _counts(self) -> dict[str, int]:
        return {HOLDOUT: HOLDOUT_SCENES}


def scene_index(split: str, number: int) -> int:
    """Which scene of a seed is number `number` of a split or of the holdout: different for any two of them."""
    return _DRAWN.index(split) * _SPLIT_STRIDE + number


@lru_cache(maxsize=256)
def _triple(options: BlocksOptions, split: str, number: int) -> Triple:
    return make_triple(options.seed, scene_index(split, number), options.aspect, options.camera_of(split))


def _unit_records(options: BlocksOptions, split: str, start: int, stop: int) -> list[Record]:
    """Pairs (and for train photos) of the scenes from `start` to before `stop`."""
    found = []
    for number in range(start, stop):
        found += _scene_records(options, split, number)
    return found


def _scene_records(options: BlocksOptions, split: str, number: int) -> list[Record]:
    filed: Split = next((name for name in SPLITS if name == split), "test")  # so the holdout's
    triple = _triple(options, split, number)
    name = f"{split}-{number:06d}"
    unit = number // SCENES_PER_UNIT
    found = []
    for pairing, (first, second) in enumerate(TRAIN_PAIRINGS if split == "train" else OFFICIAL_PAIRINGS):
        change = triple.between(first, second)
        if change is None:
            continue
        rng = np.random.default_rng((options.seed, _CAPTION_STREAM, _DRAWN.index(split), number, pairing))
        captions = captions_for(change, triple.scene(first), triple.scene(second), rng, options.relational)
        found.append(
            Record(
                kind="pair",
                split=filed,
                key=f"{name}-{first}-{second}",
                images={"before.jpg": f"{name}/{first}", "after.jpg": f"{name}/{second}"},
                id=f"{name}/{first}/{second}",
                captions=captions,
                changed=change.type != "none",
                change_type=change.type,
                truth=_truth(options, triple, first, second),
                unit=unit,
            )
        )
    if split == "train":
        rng = np.random.default_rng((options.seed, _PHOTO_STREAM, number))
        captions = photo_captions(triple.before, rng, options.aspect)
        image = f"{name}/before"
        photo = Record("photo", filed, f"{name}-before", {"photo.jpg": image}, image, captions, unit=unit)
        found.append(photo)
    return found


def _truth(options: BlocksOptions, triple: Triple, first: str, second: str) -> dict:
    """The change from `first` to `second`, and the pixels of the changed object in both images."""
    change = triple.between(first, second)
    assert change is not None
    truth = change.truth()
    if change.type == "none":
        return truth
    width, height = options.size
    pixels = {}
    for role, image in (("before", first), ("after", second)):
        number = triple.changed_object(image)
        shown = None if number is None else object_picture(triple.scene(image), width, height) == number
        pixels[role] = "" if shown is None else masks.encode(shown)
    return truth | {"pixels": {"size": [height, width], **pixels}}


def _class_records(split: Split, photos: int) -> list[Record]:
    """`photos` single-object photos of every class, round by round, so that each unit has all classes."""
    return [
        Record(
            kind="class",
            split=split,
            key=f"class-{split}-{name.replace(' ', '-')}-{number:05d}",
            images={"photo.jpg": f"class-{split}/{class_id}/{number}"},
            id=f"class-{split}/{class_id}/{number}",
            class_id=class_id,
            class_name=name,
            unit=number // CLASS_ROUNDS_PER_UNIT,
        )
        for number in range(photos)
        for class_id, name in enumerate(CLASS_NAMES)
    ]
