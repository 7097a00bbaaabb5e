"""One recipe with several training seeds: a run each in runs/NAME-seeds/seed_N, then mean and spread of their scores.

The data are the same for all: scenes and captions of `blocks` are drawn by --data.blocks.seed, and features and
tokenizer depend on the data alone. --seed decides the first weights, the order of samples, masks and dropout.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from cluster import CODE
from cluster.evaluation.protocol import comparable
from cluster.evaluation.seed_scores import summarize, text_table
from cluster.launch import ray_train, run_folder
from cluster.pipeline import SCORES, run
from cluster.recipes.commandline import Command
from cluster.recipes.edits_first import starting_from_edits
from cluster.recipes.sizes import with_sizes_of
from cluster.report.seeds import seeds_page
from cluster.training.job import Job
from shards.errors import DataError
from shards.format.whole_files import write_whole
from shards.progress import say

SUMMARY, PAGE = "seeds.json", "seeds.html"


def run_seeds(command: Command, fit: Callable[[Job], None] = ray_train.fit) -> Path | None:
    """Runs the command with each of its seeds; returns the path of seeds.json, None where nothing is scored.

    A seed that is done is left as it is, one that was stopped goes on. fit: as of `cluster.pipeline.run`. Raises as
    that does, and before anything is trained where a run folder is of another configuration.
    """
    root = run_folder.find_root(command.config.root, CODE)
    group = f"{command.config.name}-seeds"
    names = {seed: f"{group}/seed_{seed}" for seed in command.seeds}
    single = {
        seed: starting_from_edits(
            dataclasses.replace(
                command, seeds=(), config=dataclasses.replace(command.config, name=name, seed=seed, root=str(root))
            )
        )
        for seed, name in names.items()
    }
    for one in single.values():
        run_folder.check_run(root, with_sizes_of(one.config, one.recipe, one.given, root))
    results = {}
    for number, (seed, one) in enumerate(single.items(), start=1):
        say(f"seed {seed}, {number} of {len(single)}")
        if folder := run(one, fit, again=False):
            results[seed] = folder
    if not command.evaluates:
        return None
    scores = {seed: json.loads((folder / SCORES).read_bytes()) for seed, folder in results.items()}
    _require_one_protocol(scores, results)
    found = {"name": command.config.name} | summarize(scores)
    inside = results[command.seeds[0]].relative_to(root / "runs" / names[command.seeds[0]])
    out = root / "runs" / group / inside
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / SUMMARY, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    reports = {seed: os.path.relpath(folder / "report.html", out) for seed, folder in results.items()}
    write_whole(out / PAGE, seeds_page(found, reports))
    say(text_table(found))
    say(f"mean and spread: {out / SUMMARY}, {out / PAGE}")
    return out / SUMMARY


def _require_one_protocol(scores: dict[int, dict], results: dict[int, Path]) -> None:
    (first, wanted), *others = ((seed, comparable(one["protocol"])) for seed, one in scores.items())
    for seed, found in others:
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            raise DataError(
                f"seeds {first} and {seed} were scored under other protocols ({differing[0]}): delete "
                f"{results[seed] / SCORES} and give the command again"
            )
