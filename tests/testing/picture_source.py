"""A source made of whatever records and image bytes a test hands it, and pictures with something to see in them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shards.format.record import Record


class PictureSource:
    """Records whose image ids are keys of `images`."""

    name = "pictures"

    def __init__(self, records: list[Record], images: dict[str, bytes], classes: tuple[str, ...] = ()) -> None:
        self.dropped: dict[str, int] = {}
        self.lost: list[str] = []
        self._records = records
        self._images = images
        self._classes = classes

    def describe(self) -> dict:
        return {"records": len(self._records)}

    def classes(self) -> list[str]:
        return list(self._classes)

    def records(self, workers: int) -> list[Record]:
        return self._records

    def image(self, image_id: str) -> bytes:
        return self._images[image_id]


def picture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Patches of colour and some grain: as different from the picture of another seed as two photos are."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(patches, np.int64) + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(split: str, key: str, caption: str = "", image: str | None = None) -> Record:
    """A photo whose image id is its key, or `image`."""
    captions = (caption or f"a photo called {key}",)
    return Record("photo", split, key, {"photo.jpg": image or key}, f"source/{key}", captions)


def pair(split: str, key: str, before: str, after: str, captions: tuple[str, ...] = ("it moved",)) -> Record:
    """A pair of two image ids."""
    images = {"before.jpg": before, "after.jpg": after}
    return Record("pair", split, key, images, f"source/{key}", captions, True, "move")
