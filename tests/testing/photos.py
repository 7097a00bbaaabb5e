"""Photos made up: soft patches of colour, no two alike, and with enough in them to be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def made_up_photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture of 12x9 patches with soft edges, fine grain over them."""
    rng = np.random.default_rng((seed, 0xF07))
    patches = Image.fromarray(rng.integers(20, 236, (9, 12, 3), dtype=np.uint8))
    soft = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-14, 15, (height, width, 1))
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """JPEGs NUMBER.jpg of such photos, every third in a sub-folder."""
    paths = []
    for number in range(first, first + count):
        path = folder / ("more" if number % 3 == 2 else "") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        made_up_photo(number).save(path, quality=95)
        paths.append(path)
    return paths
