"""python -m bench.your_data --photos DIR --other DIR: trains the arms of the table of docs/your-data.md.

--write puts what the runs gave into the table.

The own pairs are edits of the photos of --photos, and rendered scenes. --init starts from a model of edits of the
photos of --other. The same command again goes on where it was stopped; a run with scores is over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.your_data import page
from bench.your_data.arms import INIT, NAME, OTHER, ROOT, Arm, train
from bench.your_data.folders import SIZES, made_of_photos, own_pairs, rendered
from bench.your_data.page import PROBLEMS
from cluster.errors import ConfigError, exit_code
from cluster.launch.run_folder import find_root
from shards.errors import run_main

OTHER_PAIRS = "1000,200,0"  # of train, val and test, in the run that --init starts from


def main(arguments: Sequence[str]) -> int:
    """Exit codes as of cluster/train.py."""
    parser = argparse.ArgumentParser(prog="python -m bench.your_data", description=(__doc__ or "").partition(":")[2])
    parser.add_argument("--photos", type=Path, help="photos that own pairs are edits of")
    parser.add_argument("--other", type=Path, help="other photos, of whose edits the model of --init is trained")
    parser.add_argument("--sizes", default="50,500", help=f"numbers of training pairs, of {SIZES} (%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="(%(default)s)")
    parser.add_argument("--pairs", default=",".join(PROBLEMS), help="which own pairs (%(default)s)")
    parser.add_argument("--only", default="", help="these arms alone")
    parser.add_argument("--root", default="", help="folder of data/ and runs/; as of cluster/train.py")
    parser.add_argument("--write", action="store_true", help="write bench/results and the table of the page")
    asked = parser.parse_args(arguments)
    root = find_root(asked.root, ROOT)
    if asked.write:
        page.write(root / "runs" / NAME, ROOT)
        return 0
    sizes = [int(size) for size in _of("sizes", asked.sizes, map(str, SIZES))]
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for problem in _of("pairs", asked.pairs, PROBLEMS):
        arms = {arm.name: arm for arm in PROBLEMS[problem].arms}
        names = _of("only", asked.only, arms) if asked.only else list(arms)
        for place in ("photos", "other"):
            needed = problem == "edits" if place == "photos" else INIT.name in names
            if needed and getattr(asked, place) is None:
                raise ConfigError(f"--{place} is missing: name a folder of photos")
        for size in sizes:
            code = exit_code(
                lambda problem=problem, size=size, names=names, arms=arms: _train(
                    problem, size, seeds, [arms[name] for name in names], root, asked
                )
            )
            if code:
                return code
    return 0


def _of(option: str, text: str, known) -> list[str]:
    names, known = text.split(","), list(known)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--{option} {unknown[0]!r} is none of {', '.join(known)}")
    return names


def _train(problem: str, size: int, seeds: Sequence[int], arms: Sequence[Arm], root: Path, asked) -> None:
    data = root / "data" / NAME
    made = made_of_photos(asked.photos, data) if problem == "edits" else rendered(data)
    shards = own_pairs(made, size, data).relative_to(root)
    if INIT in arms:
        options = {"data.edits.photos": str(asked.other.resolve()), "data.edits.pairs": OTHER_PAIRS}
        train(OTHER, Arm(OTHER, "", "edits", options), root, "train", **{"data.shards": f"data/{NAME}/{OTHER}"})
    for seed in seeds:
        for arm in arms:
            train(f"{problem}-{size}/{arm.name}-{seed}", arm, root, seed=str(seed), **{"data.shards": str(shards)})


if __name__ == "__main__":
    run_main(main)
