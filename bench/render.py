"""CPU-seconds that the blocks renderer takes for an image: `python bench/render.py [--scenes N]`.

Prints one JSON line: for each size the mean over scenes of the before image, with the bar it has to stay under, and the
cost of making a scene itself (placing, visibility, captions).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shards.blocks.renderer import render  # noqa: E402
from shards.blocks.scenes import make_triple  # noqa: E402
from shards.sources.blocks import BlocksSource  # noqa: E402

# width, height, supersample, bar in CPU-seconds an image
SIZES = ((160, 120, 2, 0.06), (336, 224, 1, 0.06), (480, 320, 3, 0.4))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=200, help="scenes to average over (default: 200)")
    count = parser.parse_args().scenes
    make_triple(0, 0)  # compiles
    start = time.process_time()
    triples = [make_triple(0, index) for index in range(count)]
    result: dict = {"scenes": count, "triple_s": round((time.process_time() - start) / count, 5)}
    source = BlocksSource(scenes=(count, 0, 0), class_photos=0, seed=1)
    start = time.process_time()
    source.records(1)
    result["records_s_a_scene"] = round((time.process_time() - start) / count, 5)
    slow = False
    for width, height, supersample, bar in SIZES:
        render(triples[0].before, width, height, supersample)
        start = time.process_time()
        for triple in triples:
            render(triple.before, width, height, supersample)
        seconds = (time.process_time() - start) / count
        slow |= seconds > bar
        result[f"{width}x{height}/{supersample}x{supersample}"] = {"cpu_s": round(seconds, 4), "bar": bar}
    print(json.dumps(result))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
