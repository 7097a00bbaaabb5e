"""The course of one command: data, run folder, training on all workers, captions, scores, report."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from cluster import CODE
from cluster.batches.joint_tokenizer import training_captions
from cluster.batches.prepared import Data, Training
from cluster.config.fields import HOLDOUT, Config
from cluster.distributed.devices import expected_here
from cluster.errors import ConfigError
from cluster.evaluation.calibrating import reliability
from cluster.evaluation.pointing import where_scores
from cluster.evaluation.predict import read_predictions, with_denials
from cluster.evaluation.protocol import comparable, hashes, protocol, with_mean_of_four
from cluster.evaluation.scores import score, write_scores
from cluster.launch import ray_train, run_folder, run_lock
from cluster.prepare import (
    prepare_evaluation,
    prepare_training,
    require_folders,
    say_if_no_java,
    with_sizes,
)
from cluster.recipes.commandline import Command, read_config
from cluster.recipes.edits_first import first_run, starting_from_edits
from cluster.recipes.sizes import with_sizes_of
from cluster.report.examples import write_examples
from cluster.report.report import write_report
from cluster.tracking import goodput
from cluster.tracking.following import Progress
from cluster.training import checkpoint
from cluster.training.job import Evaluation, Job
from cluster.training.weights import best_checkpoint, check_starts
from idc.backbone.canvas import Canvas
from idc.captioning.model_folder import FOLDER as MODEL_FOLDER
from shards.errors import DataError
from shards.format.tars import file_sha256
from shards.packing import twins
from shards.progress import busy, say
from shards.reading.reader import Folder

EDITS_STAGES = ("all", "train", "pretrain")  # --stage, with which --pretraining edits comes first
PREDICTIONS, SCORES = "predictions.jsonl", "scores.json"


def run(command: Command, fit: Callable[[Job], None] = ray_train.fit, again: bool = True) -> Path | None:
    """Does what the command asks for; returns the folder of the scores, None where it makes none.

    fit: runs a job on all workers; who has one worker alone can do without Ray. again: False leaves scores that are
    there, of the same checkpoint and protocol, as they are. Raises DataError for the user's mistakes, TrainingError
    where training fails.
    """
    root = run_folder.find_root(command.config.root, CODE)
    command = starting_from_edits(command)
    if command.pretraining and command.stage in EDITS_STAGES and not _has_begun(root, command):
        require_folders(command.config, root, command.evaluates)  # what would be missed an hour later
        run(first_run(command, root), fit)
    config = with_sizes_of(run_folder.with_root(command.config, root), command.recipe, command.given, root)
    folder = run_folder.check_run(root, config)
    with run_lock.held(folder):
        run_folder.check_run(root, config)  # another driver may have begun it before the lock was ours
        return _run(command, config, root, folder, fit, again)


def _has_begun(root: Path, command: Command) -> bool:
    """Whether a stage of the command's run has a checkpoint: its first weights are not needed any more."""
    folder = root / "runs" / command.config.name / "checkpoints"
    return any(checkpoint.find(folder / name) for name in command.config.stages)


def _run(
    command: Command, config: Config, root: Path, folder: Path, fit: Callable[[Job], None], again: bool
) -> Path | None:
    """`run` in a folder that no other driver works in."""
    if not ray_train.attaches():  # before data are made; of a cluster it is known when Ray answers
        expected_here(config.cluster)
    if command.evaluates:
        say_if_no_java(config)
    if command.stage == "evaluate":
        job = _evaluation_alone(folder, config, root)
    else:
        require_folders(config, root, command.evaluates)
        check_starts(folder, config, command.training_stages, root)
        training = prepare_training(config, root)
        data = training.data
        for shards in (data.shards, *(Folder.open(folder.shards) for folder in training.mixed)):
            for line in twins.report(shards.manifest.get("shared_images", {}), shards.location):
                say(line)
        config = with_sizes(config, training, command.asked_stages)
        run_folder.open_run(folder, config, _fingerprint(training))
        stages = _unfinished(folder, config, command)
        scored = _evaluation(folder, config, prepare_evaluation(config, root, data)) if command.evaluates else None
        job = Job(
            config, folder, data.shards.location, data.place.features, stages, _exports(folder, config, stages), scored,
            mixed=training.mixed, photos=training.photos.place if training.photos else None,
            classes=training.classes.place if training.classes else None, joint_tokenizer=training.tokenizer,
            names=training.names, live=data.live,
        )  # fmt: skip
    results = job.evaluation.predictions.parent if job.evaluation else None
    if not again and not job.stages and not job.exports and job.evaluation and _is_scored(job, job.evaluation):
        say(f"{folder} is done")
        return results
    run_folder.write_provenance(folder, CODE)
    say(f"run folder {folder}")
    if job.stages or job.exports or job.evaluation:
        with Progress(folder, job.config):
            fit(job)
        shutil.rmtree(folder / ray_train.RAY_FOLDER, ignore_errors=True)
    if job.evaluation is not None:
        _score(folder, job, job.evaluation)
    return results


def _fingerprint(training: Training) -> dict[str, str]:
    """Checksums of all data that are trained on, by what they are."""
    found = {"shards": training.data.shards.sha256()}
    if training.data.features is not None:
        found["features"] = training.data.features.sha256()
    else:
        found["backbone"] = training.data.backbone["weights_sha256"]
    further = [data.place for data in (training.photos, training.classes) if data]
    for folder in (*training.mixed, *further):
        shards = Folder.open(folder.shards)
        found[f"shards of {shards.path.name}"] = shards.sha256()
        if folder.features is not None:
            found[f"features of {shards.path.name}"] = Folder.open(folder.features).sha256()
    if training.tokenizer is not None:
        found["tokenizer"] = file_sha256(training.tokenizer)
    return found


def _evaluation_alone(folder: Path, config: Config, root: Path) -> Job:
    """The job of --stage evaluate: the model is the run's, and its training data need not be there."""
    if not (folder / MODEL_FOLDER).is_dir():
        raise ConfigError(f"{folder} has no trained model to evaluate: run --stage all first, or give another --name")
    config = dataclasses.replace(config, model=read_config(folder / run_folder.CONFIG).model)
    data = prepare_evaluation(config, root, None)
    evaluation = _evaluation(folder, config, data)
    return Job(config, folder, data.shards.location, data.place.features, (), evaluation=evaluation, live=data.live)


def _unfinished(folder: Path, config: Config, command: Command) -> tuple[str, ...]:
    """The training stages of the command that have steps left."""
    found = []
    for name in command.training_stages:
        for line in checkpoint.left_out(folder / "checkpoints" / name):
            say(line)
        newest = checkpoint.latest(folder / "checkpoints" / name)
        if newest is None or newest.commit.step < config.stage(name).steps:
            found.append(name)
        else:
            say(f"{name} is done: {newest.commit.step} steps")
    return tuple(found)


def _exports(folder: Path, config: Config, stages: tuple[str, ...]) -> bool:
    """True where the run's last stage will be finished now, or is and its model has not been written."""
    last = [name for name in config.stages if config.stage(name).steps][-1:]
    if last and last[0] in stages:
        return True
    newest = checkpoint.latest(folder / "checkpoints" / last[0]) if last else None
    finished = newest is not None and newest.commit.step >= config.stage(last[0]).steps
    return finished and not (folder / MODEL_FOLDER).is_dir()


def _evaluation(folder: Path, config: Config, data: Data) -> Evaluation:
    """What is captioned, and where results go: the run folder for its own test split, else evaluations/DATA-SPLIT."""
    split = "test" if config.evaluate.split == HOLDOUT else config.evaluate.split
    if not data.shards.manifest["splits"].get(split, {}).get("pair", 0):
        raise ConfigError(f"--evaluate.split {split}: {data.shards.location} has no pairs in it")
    own = not config.evaluate.shards and config.evaluate.split == "test"
    out = folder if own else folder / "evaluations" / f"{data.shards.path.name}-{split}"
    out.mkdir(parents=True, exist_ok=True)
    return Evaluation(data.shards.location, data.place.features, split, out / PREDICTIONS)


def _score(folder: Path, job: Job, evaluation: Evaluation) -> None:
    """scores.json and report.html beside the predictions; a summary for the person who waits."""
    config, shards = job.config, Folder.open(evaluation.shards)
    canvas = Canvas.of(job.backbone)
    predictions = with_denials(read_predictions(evaluation.predictions), shards)
    with busy(f"scoring {len(predictions):,} captions"):
        scores = score(
            predictions,
            training_captions(shards, "pair"),  # what the constant baseline chooses from
            tokenizer=config.evaluate.tokenizer,
            seed=config.seed,
            checkpoint=_scored_checkpoint(folder, config),
        )
    scores["where"] = where_scores(predictions, canvas)
    scores["calibration"] = reliability(predictions)
    scores["protocol"] = _protocol(folder, config, evaluation, predictions, scores["tokenizer"])
    scores["hashes"] = hashes(predictions)
    with_mean_of_four(scores)
    scores["goodput"], why = goodput.read(folder)
    if why:
        scores.setdefault("reasons", {})["goodput"] = why
    out = evaluation.predictions.parent
    write_scores(out / SCORES, scores)
    say(summary(scores))
    if out == folder:
        write_examples(folder, predictions, shards.stream("pair", evaluation.split))
    with busy("writing the report", announced=False):
        report = write_report(folder, out, shards, canvas, evaluation.split)
    say(f"report {report}")


def _protocol(
    folder: Path, config: Config, evaluation: Evaluation, predictions: list[dict], tokenizer: str = ""
) -> dict:
    best = best_checkpoint(folder, config)
    return protocol(
        config,
        Folder.open(evaluation.shards),
        evaluation.split,
        predictions,
        config.model.max_length,
        run_folder.code_state(CODE),
        dataclasses.asdict(best.commit) if best else None,
        tokenizer,
    )


def _scored_checkpoint(folder: Path, config: Config) -> str:
    """The checkpoint whose model is captioned with, below the run folder; empty where there is none."""
    best = best_checkpoint(folder, config)
    return str(best.folder.relative_to(folder)) if best else ""


def _is_scored(job: Job, evaluation: Evaluation) -> bool:
    """Whether the scores of a job's evaluation are there, of the checkpoint and the protocol that it asks for."""
    try:
        saved = json.loads((evaluation.predictions.parent / SCORES).read_bytes())
        predictions = read_predictions(evaluation.predictions)
    except (OSError, ValueError, DataError):
        return False
    asked = _protocol(job.run, job.config, evaluation, predictions)
    same = comparable(saved.get("protocol", {})) == comparable(asked)
    return same and saved["checkpoint"] == _scored_checkpoint(job.run, job.config)


def summary(scores: dict) -> str:
    """The few numbers that say how good the captions are."""

    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    def share(value: float | None, count: int) -> str:
        return "-" if value is None else f"{number(value)} % of {count}"

    accuracy, skill, where = scores["accuracy"], scores["skill"], scores["where"]
    why = scores.get("reasons", {}).get("tokenizer")
    known = skill["total"] is not None or skill["changed"] is not None
    return (
        f"CIDEr {number(scores['total']['CIDEr'])} (changed {number(scores['changed']['CIDEr'])}), "
        + (f"skill {number(skill['total'], 2)} (changed {number(skill['changed'], 2)}), " if known else "")
        + "accuracy "
        + ", ".join(
            f"{name} {share(accuracy[name], accuracy['n'][name])}"
            for name in ("changed", "unchanged", "type", "object")
        )
        + ("" if where["n"] == 0 else f", points at the change {share(where['pointing_game'], where['n'])}")
        + ("" if why is None else f"; tokenizer {scores['tokenizer']}: {why}")
    )
