"""What every worker runs: the training stages one after another, the export, and captions of the evaluation split."""

from __future__ import annotations

import contextlib
import functools
import secrets
import socket
from pathlib import Path

import torch

from cluster.batches import resident
from cluster.batches.samples import Samples
from cluster.distributed.ranks import Ranks
from cluster.errors import ConfigError
from cluster.evaluation.predict import merge, predict, write_predictions
from cluster.images.live import Live, open_loaders
from cluster.images.loaders import Loaders
from cluster.tracking import goodput
from cluster.tracking.doing import Doing
from cluster.tracking.run_log import RunLog
from cluster.training.job import Evaluation, Job
from cluster.training.stage import StageRun
from cluster.training.weights import best_checkpoint, export_model
from idc.backbone.backbone import Backbone
from idc.captioning.model_folder import FOLDER, load
from shards.reading.reader import Folder


def run(job: Job, device: torch.device) -> None:
    """Everything a worker does, in the process group that is there already. All ranks call it with the same job."""
    torch.set_num_threads(job.config.cluster.threads)
    ranks = Ranks(job.config.cluster.timeout_s)
    _require_shared(job.run, ranks)
    doing = Doing(job.run if ranks.first else None)
    with contextlib.ExitStack() as opened:
        loaders = None
        if job.live is not None:
            host = socket.gethostname()
            here = ranks.gather([host]).count(host)
            loaders = opened.enter_context(open_loaders(job.config, job.live, here))
        if job.stages:
            _train(job, ranks, device, loaders, doing)
        if job.exports:
            if ranks.first:
                best = best_checkpoint(job.run, job.config)
                assert best is not None, "a finished stage has a checkpoint"
                export_model(
                    job.run / FOLDER, job.config, job.tokenizer.path, job.backbone, job.trained_on, best, device,
                    loaders, functools.partial(doing.at, "export of the model: calibration"),
                )  # fmt: skip
            ranks.barrier("exporting the model")
        if job.evaluation is not None:
            _caption(job, job.evaluation, ranks, device, loaders, doing)


def _train(job: Job, ranks: Ranks, device: torch.device, loaders: Loaders | None, doing: Doing) -> None:
    """The training stages, one after another."""
    log = RunLog(job.run, job.config) if ranks.first else None
    try:
        live, held = None, None
        if loaders is not None:
            live = Live(job.config.backbone, loaders)
        else:
            folders = [Folder.open(path) for path in job.feature_folders]
            held = resident.choose(job.config.data.features_on, device, folders)
        for name in job.stages:
            StageRun(job, name, ranks, device, log, doing, held, live).run()
        if ranks.first:
            goodput.note(job.run)
        if log is not None:
            log.summarise({"goodput": goodput.so_far(job.run)})
    finally:
        if log is not None:
            log.close()


def _require_same_backbone(trained: dict, features: Folder) -> None:
    found = features.manifest["features"]
    apart = ("of", "precision", "made_with")  # say where features came from, and nothing of what they are
    differing = [name for name in trained if name not in apart and found.get(name) != trained[name]]
    if differing:
        raise ConfigError(
            f"{features.path} differs in {differing[0]} from the features that the model was trained on: give the "
            f"--backbone options of the run"
        )


def _require_shared(run: Path, ranks: Ranks) -> None:
    """ConfigError where a worker does not see what rank 0 writes: its part of every checkpoint would be lost."""
    token = ranks.share(secrets.token_hex(8))
    path = run / ".canary"
    if ranks.first:
        path.write_text(token)
    ranks.barrier("looking for the run folder")
    seen = path.is_file() and path.read_text() == token
    blind = [host for host in ranks.gather([None if seen else socket.gethostname()]) if host]
    if ranks.first:
        path.unlink()
    if blind:
        raise ConfigError(f"{run} is not the same folder on {blind[0]}: name one that all share by --root")


def _caption(
    job: Job, evaluation: Evaluation, ranks: Ranks, device: torch.device, loaders: Loaders | None, doing: Doing
) -> None:
    """Captions the evaluation split with the exported model, each rank its share; rank 0 writes them."""
    settings = job.config.evaluate
    exported = load(job.run)
    seen = None
    if evaluation.features is not None:
        _require_same_backbone(exported.backbone, Folder.open(evaluation.features))
    else:
        weights = exported.backbone_weights or job.config.backbone.weights
        seen = Backbone.from_description(exported.backbone, weights, device).network.seen
    samples = Samples(evaluation.shards, evaluation.features, "pair", evaluation.split, loaders=loaders)
    mine = predict(
        exported.model.to(device), samples, exported.tokenizer, rank=ranks.rank, world=ranks.world,
        beam=settings.beam, length_penalty=settings.length_penalty, batch_size=settings.batch_size,
        limit=settings.limit, device=device, maps=True,
        precision=job.config.cluster.precision, calibration=exported.calibration, seen=seen,
        told=functools.partial(doing.at, f"captions of the {evaluation.split} split"),
    )  # fmt: skip
    predictions = merge([ranks.gather(mine)])
    if ranks.first:
        write_predictions(evaluation.predictions, predictions)
    ranks.barrier("writing predictions")
