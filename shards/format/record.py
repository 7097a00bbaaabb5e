"""What a source of data yields: records (everything but pixels) and, for each image they name, its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Kind = Literal["pair", "photo", "class"]
Split = Literal["train", "val", "test"]
ROLES: dict[str, tuple[str, ...]] = {"pair": ("before", "after"), "photo": ("photo",), "class": ("photo",)}  # images


@dataclass(frozen=True)
class Record:
    """One sample before it is packed.

    `key` is unique in the shard folder and free of dots and slashes. `images` maps member names ("before.jpg",
    "after.jpg" of a pair; "photo.jpg" else) to image ids, which only the source understands. `id` is the source's own
    name of the sample. `truth` is the exact truth of a pair where it is known:
    {"type": "color"|"material"|"add"|"drop"|"move"|"none", "object": {"size", "color", "material", "shape"} or None,
    "to": {"color": value} or {"material": value} or None}; where known too, "pixels" of the changed object:
    {"size": [height, width], "before": runs, "after": runs} (`shards.images.masks`; "" where an image does not have
    it). Records with the same (split, unit) are packed by one worker call, so that an image they share is made once.
    """

    kind: Kind
    split: Split
    key: str
    images: dict[str, str]
    id: str
    captions: tuple[str, ...] = ()
    changed: bool | None = None
    change_type: str | None = None
    class_id: int | None = None
    class_name: str | None = None
    truth: dict | None = None
    unit: int = 0


class Source(Protocol):
    """A data set that can be packed. Sources are pickled into worker processes, where `image` is called."""

    name: str
    dropped: dict[str, int]  # after records(): what was left out, counted by reason
    lost: list[str]  # and each by name, a line "name: reason"

    def describe(self) -> dict:
        """What the records depend on as plain data, for the manifest: options, digests; not where the folder lies."""
        ...

    def records(self, workers: int) -> list[Record]:
        """All records, the same whatever the number of worker processes."""
        ...

    def image(self, image_id: str) -> bytes:
        """The bytes of an image that a record names, in a format that shards.images.decode.jpeg_or_png takes."""
        ...

    def classes(self) -> list[str]:
        """Names of the classes, by class id; empty where there are none."""
        ...


@runtime_checkable
class FromFiles(Protocol):
    """A source whose images are files, which others may replace while a packing is interrupted."""

    def stamp(self, image_id: str) -> str:
        """What is another text if the file of an image was replaced, found without reading it."""
        ...
