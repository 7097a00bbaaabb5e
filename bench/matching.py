"""Draws what our network matches in one pair (figure 3 of docs/method.md): `python bench/matching.py RUN SHARDS ID`.

RUN is a run folder or model folder of the architecture `idc`; ID is a test pair, as `shards.order --split test` prints
it. Circles are the peaks of "something is here". On the second image an empty circle is where a region of the first
was, a blue arrow what the fitted motion of the camera does to it, and a red one what is left up to its counterpart by
looks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from idc.backbone.backbone import Backbone  # noqa: E402
from idc.backbone.canvas import Canvas  # noqa: E402
from idc.captioning import model_folder  # noqa: E402
from idc.model.cells import STEPS  # noqa: E402
from idc.model.region_model import RegionModel  # noqa: E402
from idc.model.regions import Regions, swapped  # noqa: E402
from shards.errors import DataError, run_main  # noqa: E402
from shards.reading.reader import Folder  # noqa: E402

SURE = 0.5  # regions less likely than this to show something are left out of the picture
ARROW = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
OWN = 1.0  # steps: a shorter rest is not drawn as a motion of the thing's own


@dataclass(frozen=True)
class Matched:
    """Regions of `before` and their counterparts, in steps (x, y); T regions an image.

    before, after (T, 2): the peaks. sure_before, sure_after (T,): probability of "something is here". expected (T, 2):
    where the camera's motion alone takes each region of `before`. found (T, 2): its counterpart's place, by looks.
    """

    before: np.ndarray
    after: np.ndarray
    sure_before: np.ndarray
    sure_after: np.ndarray
    expected: np.ndarray
    found: np.ndarray


@torch.no_grad()
def match(model: RegionModel, features: torch.Tensor) -> Matched:
    """The first view of the matching, from features (2, N, F) of before and after."""
    regions = model.find({"before": features[:1], "after": features[1:]})
    looks = model.looks_of(regions)
    seen, other, before, after = looks.float(), swapped(looks.float()), regions, regions.swapped()
    similarity = torch.nn.functional.normalize(seen, dim=-1) @ torch.nn.functional.normalize(other, dim=-1).mT
    exists = torch.nn.functional.logsigmoid(after.score)[:, None]
    by_looks, by_place = model.matching.log_sharpness.exp()[0]
    expected = model.matching.expected(similarity, exists, torch.stack([by_looks, by_place]), before, after)
    distance = (expected[:, :, None] - after.position[:, None]).square().sum(-1)
    found = (by_looks * similarity - by_place * distance + exists).softmax(-1) @ after.position
    return Matched(*(_plain(values) for values in (before.position, after.position)), *map(_sure, (before, after)),
                   _plain(expected), _plain(found))  # fmt: skip


def _plain(values: torch.Tensor) -> np.ndarray:
    return values[0].numpy()


def _sure(regions: Regions) -> np.ndarray:
    return _plain(regions.score.sigmoid())


def draw(images: Sequence[Image.Image], matched: Matched, canvas: Canvas, out: Path) -> None:
    """The two images side by side with peaks and arrows, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def pixels(steps: np.ndarray) -> np.ndarray:
        top, left, height, width = canvas.place(images[0].height, images[0].width)
        scale = np.array([images[0].width / width, images[0].height / height])
        return (steps * max(canvas.outer) / STEPS - [left, top]) * scale

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained", facecolor="white")
    sides = ((matched.before, matched.sure_before), (matched.after, matched.sure_after))
    for panel, image, title, (places, sure) in zip(panels, images, ("before", "after"), sides, strict=True):
        panel.imshow(image)
        panel.set_title(title)
        panel.axis("off")
        panel.scatter(*pixels(places[sure > SURE]).T, s=60, facecolors="none", edgecolors="#ffd000", linewidths=1.8)
    moved = pixels(matched.before), pixels(matched.expected), pixels(matched.found)
    for index in np.flatnonzero(matched.sure_before > SURE):
        start, middle, end = (points[index] for points in moved)
        panels[0].annotate(str(index + 1), start, (5, 4), textcoords="offset points", color="white", weight="bold")
        panels[1].plot(*start, "o", mfc="none", mec="white", ms=6)
        panels[1].annotate("", middle, start, arrowprops=ARROW | {"color": "#40d0ff", "lw": 1.5})
        if np.linalg.norm(matched.found[index] - matched.expected[index]) > OWN:
            panels[1].annotate("", end, middle, arrowprops=ARROW | {"color": "#ff2020", "lw": 2.2})
        panels[1].annotate(str(index + 1), end, (5, 4), textcoords="offset points", color="white", weight="bold")
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/matching.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run folder or its model/ folder, architecture idc")
    parser.add_argument("shards", help="the shard folder of the pair")
    parser.add_argument("id", help="of a test pair, such as test-000000/before/after")
    parser.add_argument("--out", type=Path, default=Path("docs/img/matching.png"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        loaded = model_folder.load(options.run)
    except model_folder.ExportError as error:
        raise DataError(str(error)) from None
    if not isinstance(loaded.model, RegionModel):
        raise DataError(f"{options.run} has the published network, which matches no regions: name a run of ours")
    stream = Folder.open(options.shards).stream("pair", "test")
    place = next((i for i in range(len(stream)) if stream.metadata(i)["id"] == options.id), None)
    if place is None:
        raise DataError(
            f"{options.shards} has no test pair {options.id}: name one that `shards.order --split test` prints"
        )
    record, images = stream.decoded(place)
    pair, canvas = [images["before"], images["after"]], Canvas.of(loaded.backbone)
    features = Backbone.from_description(loaded.backbone).features(pair).float()
    matched = match(loaded.model.eval(), features)
    draw([Image.fromarray(image) for image in pair], matched, canvas, options.out)
    print(f"{options.out}: {record['captions'][0]}")
    return 0


if __name__ == "__main__":
    run_main(main)
