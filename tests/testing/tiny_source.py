"""A data set of a few coloured squares, small enough to pack in every test; and those that make trouble."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from shards.errors import DataError
from shards.format.record import Record

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (20, 160, 20), "gray": (90, 90, 90)}


class TinySource:
    """`scenes` for training in units of 4, two each for val and test. Images whose id is in `broken` are not there."""

    name = "tiny"

    def __init__(self, scenes: int = 10, broken: tuple[str, ...] = (), seconds: float = 0.0) -> None:
        self.dropped: dict[str, int] = {}
        self.lost: list[str] = []
        self.scenes = scenes
        self.broken = broken
        self.seconds = seconds  # that an image takes

    def describe(self) -> dict:
        return {"scenes": self.scenes}

    def classes(self) -> list[str]:
        return list(COLORS)

    def records(self, workers: int) -> list[Record]:
        found = []
        for split, count in (("train", self.scenes), ("val", 2), ("test", 2)):
            for number in range(count):
                found += self._scene(split, number)
        return found

    def _scene(self, split: str, number: int) -> list[Record]:
        names = list(COLORS)
        first, second = names[number % 4], names[(number + 1 + number // 4) % 4]
        if second == first:
            second = names[(number + 1) % 4]
        name, unit = f"{split}-{number:03d}", number // 4
        before, after = f"{name}/{first}", f"{name}/{second}"
        turned = (f"the large {first} cube turned {second}", f"the {first} cube became {second}")
        same = ("there is no change", "nothing has changed")
        truth = {
            "type": "color",
            "object": {"size": "large", "color": first, "material": "rubber", "shape": "cube"},
            "to": {"color": second},
        }
        none = {"type": "none", "object": None, "to": None}
        pairs = [
            ("c", after, turned, True, "color", truth),
            ("n", before + "/again", same, False, "none", none),
        ]
        found = [
            Record(
                "pair", split, f"{name}-{ending}", {"before.jpg": before, "after.jpg": image}, f"{name}/{ending}",
                captions, changed, change, truth=known, unit=unit,
            )
            for ending, image, captions, changed, change, known in pairs
        ]  # fmt: skip
        found.append(
            Record(
                "photo", split, f"{name}-p", {"photo.jpg": before}, before, (f"a photo of a {first} cube",), unit=unit
            )
        )
        if split == "train":
            found.append(
                Record("class", split, f"{name}-k", {"photo.jpg": before}, before, class_id=names.index(first),
                       class_name=first, unit=unit)
            )  # fmt: skip
        return found

    def image(self, image_id: str) -> bytes:
        time.sleep(self.seconds)
        if image_id in self.broken:
            raise DataError("no such file")
        _, color, *again = image_id.split("/")
        pixels = np.full((16, 24, 3), 128, np.uint8)
        pixels[4:12, 4:12] = COLORS[color]
        pixels[0, 0] = len(again)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG" if again else "JPEG")
        return buffer.getvalue()


class Deadly(TinySource):
    """Ends the process that asks for an image of the test split."""

    def image(self, image_id: str) -> bytes:
        if image_id.startswith("test"):
            os._exit(1)
        return super().image(image_id)


class Near(TinySource):
    """Has its images in a folder by a relative name, which another folder or machine does not have."""

    def image(self, image_id: str) -> bytes:
        try:
            return Path("images", image_id.replace("/", "-")).read_bytes()
        except FileNotFoundError:
            raise DataError("no such file") from None
