"""Pairs to try the page with: chosen by whoever starts the server, named by their number alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idc.backbone.pixels import ImageError
from idc.captioning.images import pixels_of
from idc.captioning.pair_lists import PairsError, list_pairs
from idc.web.answers import THUMBNAIL, address, jpeg

MOST = 12
FOLDER = "examples"  # of a run


@dataclass(frozen=True)
class Example:
    """A pair of files, and the pictures of them that the page shows."""

    name: str
    files: tuple[str, str]
    thumbnails: tuple[str, str]  # addresses that hold them

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Both images, uint8 (H, W, 3). ImageError: a file is no longer what it was."""
        before, after = (pixels_of(file, file) for file in self.files)
        return before, after


def load(given: str | None, run: Path) -> list[Example]:
    """The first pairs of a folder or table (`idc.captioning.pair_lists`); given None: of examples/ in the run, if it is
    there. A pair that cannot be read is named on stderr. ValueError: none of those that were asked for can."""
    source = given or str(run / FOLDER)
    if given is None and not Path(source).is_dir():
        return []
    found: list[Example] = []
    try:
        pairs = list_pairs(source, None)
    except PairsError as error:
        raise ValueError(f"--examples {error}") from None
    for pair in pairs:
        if len(found) == MOST:
            break
        try:
            if pair.fault:
                raise ImageError(pair.fault)
            images = [pixels_of(file, file) for file in (pair.before, pair.after)]
        except ImageError as error:
            print(f"example {pair.place}: {error}", file=sys.stderr)
            continue
        before, after = (address(jpeg(image, THUMBNAIL), "jpeg") for image in images)
        found.append(Example(Path(pair.before).stem, (pair.before, pair.after), (before, after)))
    if given is not None and not found:
        raise ValueError(f"--examples {given}: none of its pairs can be read")
    return found
