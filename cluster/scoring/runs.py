"""Runs brought together: their scores, which must be of the same pairs, their captions, and where their images are."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config.fields import Config
from cluster.config.options import options
from cluster.evaluation.predict import read_predictions, with_denials
from cluster.evaluation.protocol import comparable
from cluster.evaluation.seed_scores import SHOWN
from cluster.launch.run_folder import CONFIG
from cluster.recipes.commandline import read_config
from shards.errors import DataError
from shards.reading.reader import Folder

SCORES, PREDICTIONS, SEEDS = "scores.json", "predictions.jsonl", "seeds.json"
RUNS, EVALUATIONS = "runs", "evaluations"
MAY_DIFFER = ("decoding", "selection")  # parts of a protocol that are a method's own
OWN = {"name", "seed", "root", "log.wandb"}  # options that say nothing of a method


@dataclass(frozen=True)
class Scored:
    """One run that was scored. results: the folder of scores.json; run: that of the curves and the configuration."""

    results: Path
    run: Path
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """What is compared: a run, or the runs of several seeds, the first of which lends its captions and curves."""

    label: str
    runs: tuple[Scored, ...]

    @property
    def first(self) -> Scored:
        """The run of the first seed."""
        return self.runs[0]

    def figure(self, section: str, name: str) -> list[float | None]:
        """A figure of scores.json of each run."""
        return [one.scores[section].get(name) for one in self.runs]


def read_methods(folders: Sequence[Path]) -> list[Method]:
    """A method a folder: a run, an evaluation inside of it, or NAME-seeds (or an evaluation inside of that).

    DataError where a folder has no scores, or scores of other pairs than the first one.
    """
    methods = [Method("", tuple(_runs(folder))) for folder in folders]
    labels = _labels([folder.resolve() for folder in folders])
    methods = [Method(label, method.runs) for label, method in zip(labels, methods, strict=True)]
    wanted = _pairs_of(methods[0].first)
    for method in methods:
        for one in method.runs:
            differing = [name for name, value in _pairs_of(one).items() if value != wanted.get(name)]
            if differing:
                raise DataError(
                    f"{one.results} and {methods[0].first.results} were scored under other protocols "
                    f"({', '.join(differing)}): evaluate both in the same way"
                )
    return methods


def captions(methods: Sequence[Method], shards: Folder | None) -> list[list[dict[str, Any]]]:
    """The predictions of each method's first run, of the same pairs in the same order.

    shards: the data, which teach how their sentences are read; None where they are not here.
    """
    found = []
    for method in methods:
        path = method.first.results / PREDICTIONS
        read = [one for one in read_predictions(path) if one["references"]]
        found.append(with_denials(read, shards) if shards else read)
        if [one["key"] for one in found[-1]] != [one["key"] for one in found[0]]:
            raise DataError(f"{path} has captions of other pairs than {methods[0].first.results}: evaluate both again")
    return found


def find_shards(methods: Sequence[Method], given: str | None) -> Folder | None:
    """The data that were captioned: `given`, or data/NAME beside the runs; None where they are not there any more.

    DataError where the folder that was given holds other data.
    """
    data = methods[0].first.scores["protocol"]["data"]
    places = [given] if given else [method.first.run.parents[i] / "data" / data["name"] for method in methods
                                    for i in range(min(3, len(method.first.run.parents)))]  # fmt: skip
    for place in places:
        if given or (Path(place) / "manifest.json").is_file():
            shards = Folder.open(place)
            if shards.sha256() == data["manifest_sha256"]:
                return shards
            if given:
                raise DataError(f"--shards {given}: these are not the data that were captioned (manifest.json differs)")
    return None


def differing_options(methods: Sequence[Method]) -> dict[str, list[Any]]:
    """Option -> its value in each method's configuration, of those that are not the same in all; None: it has none."""
    configs = [_options(method.first.run / CONFIG) for method in methods]
    names = [name for name in dict.fromkeys(name for one in configs for name in one) if name not in OWN]
    values = {name: [one.get(name) for one in configs] for name in names}
    return {name: of for name, of in values.items() if any(value != of[0] for value in of)}


def spread(values: Sequence[float | None], digits: int) -> str:
    """For people: "mean ± std" of several seeds, a figure by itself; a dash where one has none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    std = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{std}"


def rows(methods: Sequence[Method]) -> list[list[str]]:
    """Of each figure: [label, that of each method]; of one run with its 95 % interval, of several with their spread.

    Figures that no method has are left out.
    """
    made = []
    for section, name, label, digits in SHOWN:
        figures = [method.figure(section, name) for method in methods]
        if any(value is not None for of in figures for value in of):
            cells = [spread(of, digits) + _chance(method, section, name, digits)
                     for method, of in zip(methods, figures, strict=True)]  # fmt: skip
            made.append([label, *cells])
    return made


def _chance(method: Method, section: str, name: str, digits: int) -> str:
    """The 95 % interval of a single run's figure in brackets, where scores.json has it."""
    if len(method.runs) > 1:
        return ""
    found = method.first.scores.get("intervals", {})
    ends = found.get("CIDEr", {}).get(section) if name == "CIDEr" else found.get(section, {}).get(name)
    return "" if ends is None else f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"


def _runs(folder: Path) -> list[Scored]:
    """The runs of a folder: itself, or those of its seeds."""
    if (folder / SEEDS).is_file():
        found = _json(folder / SEEDS)
        inside = folder.parent.name == EVALUATIONS
        group = folder.parents[1] if inside else folder
        below = folder.relative_to(group)
        return [_scored(group / f"seed_{seed}" / below) for seed in found["seeds"]]
    return [_scored(folder)]


def _scored(results: Path) -> Scored:
    scores = _json(results / SCORES)
    if not isinstance(scores.get("protocol"), dict) or "name" not in scores["protocol"]:
        raise DataError(f"{results / SCORES} is of an earlier version: run --stage evaluate again")
    run = results.parents[1] if results.parent.name == EVALUATIONS else results
    return Scored(results, run, scores)


def _pairs_of(one: Scored) -> dict[str, Any]:
    """The parts of a protocol that must be the same: all but what is a method's own."""
    found = comparable(one.scores["protocol"])
    return {name: value for name, value in found.items() if name not in MAY_DIFFER}


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names of the folders that tell them apart: their last parts, more of them where names are the same.

    What lies inside of a run's folder, a seed or an evaluation, goes with the name of that.
    """
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = ["/".join(folder.parts[-depth - _inside(folder) :]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    raise DataError(f"{folders[0]} is named twice: give runs that are not the same")


def _inside(folder: Path) -> int:
    """How far below runs/ a folder is, if runs/ is there."""
    places = [number for number, part in enumerate(folder.parts[:-1]) if part == RUNS]
    return len(folder.parts) - places[-1] - 2 if places else 0


def _options(path: Path) -> dict[str, Any]:
    config: Config | None = read_config(path) if path.is_file() else None
    return {option.name: option.value for option in options(config)} if config else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give a run folder that was evaluated, or a NAME-seeds folder"
        ) from None
    except ValueError:
        raise DataError(f"{path} is not JSON: run --stage evaluate again") from None
