"""What every worker runs: the training stages one after another, the export, and captions of the evaluation split."""

from __future__ import annotations

import math
import resource
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster import checkpoint
from cluster.bad_samples import BadSamples
from cluster.batches import Batches, StepBatch, name_words
from cluster.config import Config, FinetuneConfig, StageConfig
from cluster.engine import Engine, StepResult
from cluster.errors import ConfigError, NotFiniteError
from cluster.evaluate import merge, predict, write_predictions
from cluster.handover import export_model, load_first_weights, open_tokenizer, source_of_stage
from cluster.ranks import Ranks
from cluster.runlog import RunLog
from cluster.samples import Mixed, Samples
from cluster.schedule import learning_rate, stage_seed, step_seed
from cluster.validate import validation_scores
from idc.export import load
from idc.model import build
from idc.objectives import LOSSES, ObjectiveOptions, counts
from idc.tokenizer import Tokenizer
from shards.reader import Folder, Prefetcher


@dataclass(frozen=True)
class Evaluation:
    """Pairs to caption with the exported model, and where the captions go."""

    shards: str | Path
    features: Path
    predictions: Path


@dataclass(frozen=True)
class Job:
    """What a worker is told; plain values, so that it pickles."""

    config: Config
    run: Path
    shards: str | Path
    features: Path
    stages: tuple[str, ...]  # training stages to do now
    exports: bool = False  # write the model of the best checkpoint to model/
    evaluation: Evaluation | None = None  # what to caption at the end
    mixed: tuple[Mixed, ...] = ()  # further folders of pairs to train on
    photos: Mixed | None = None  # the folder of captioned photos, where it is another
    classes: Mixed | None = None  # the folder of class-labelled photos, where it is another
    names: tuple[str, ...] = ()  # of what the model tells apart, by class id
    joint_tokenizer: Path | None = None  # where captions come from several folders; None: the tokenizer of `shards`

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all captions that are trained on."""
        return open_tokenizer(self.shards, self.joint_tokenizer)


def train_step(
    engine: Engine, batch: StepBatch, stage: StageConfig, lr: float, device: torch.device, ranks: Ranks
) -> tuple[dict[str, float], StepResult]:
    """One optimiser step. Returns the losses, means over the whole global batch, and what the step did.

    Each loss is a sum divided by its count over all ranks and micro-batches, so loss and gradient are those of the
    global batch however it is cut.
    """
    options = ObjectiveOptions(
        mvcl_temperature=stage.mvcl_temperature,
        fda_temperature=stage.fda_temperature,
        contrastive_group=stage.contrastive_group,
        label_smoothing=stage.label_smoothing,
    )
    local = [counts(batch.model_task, micro_batch) for micro_batch in batch.micro_batches]
    present = [name for name in LOSSES if name in local[0]]
    totals = ranks.total(sum(count[name] for count in local) for name in present)
    sums = torch.zeros(len(present), device=device)
    for number, micro_batch in enumerate(batch.micro_batches, start=1):
        on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in micro_batch.items()}
        losses = engine.forward(batch.model_task, on_device, options)
        means = torch.stack([losses[name].sum / max(total, 1.0) for name, total in zip(present, totals, strict=True)])
        weights = torch.tensor([stage.weights.get(name, 1.0) for name in present], device=device)
        engine.backward((weights * means).sum(), last=number == len(batch.micro_batches))
        sums += means.detach()
    result = engine.step(lr)
    return dict(zip(present, ranks.total(sums.tolist()), strict=True)), result


class StageRun:
    """One training stage of one run on one worker."""

    def __init__(self, job: Job, name: str, ranks: Ranks, device: torch.device, log: RunLog | None) -> None:
        self._job, self._name, self._ranks, self._device, self._log = job, name, ranks, device, log
        self._stage, self._folder = job.config.stage(name), job.run / "checkpoints" / name
        self._tokenizer = job.tokenizer
        self._metric = self._stage.select if isinstance(self._stage, FinetuneConfig) else None

    def run(self) -> None:
        """Trains from the newest checkpoint, or from the start, to the last step."""
        config, stage, ranks = self._job.config, self._stage, self._ranks
        newest = ranks.share(checkpoint.latest(self._folder))
        if newest is not None and newest.commit.step >= stage.steps:
            return
        torch.manual_seed(config.seed)
        model = build(config.model)
        model.name_classes(name_words(self._job.names, self._tokenizer))
        first = source_of_stage(self._job.run, config, self._name, Path(config.root)) if newest is None else None
        if first is not None:
            load_first_weights(model, first, stage.start_parts)
        batches = Batches(
            self._job.shards, self._job.features, self._tokenizer, config.model, model.visual_tokens, stage,
            stage_seed(config.seed, self._name), ranks.rank, ranks.world, self._job.mixed, self._job.photos,
            self._job.classes, self._job.names,
        )  # fmt: skip
        engine = Engine(model, stage, config.cluster, self._device)
        try:
            step = 0
            if newest is not None:
                step = checkpoint.restore(newest, engine, ranks.world, config.cluster.zero_stage)
            if self._log is not None:
                self._log.rewind(self._name, step)
            self._train(engine, batches, step)
        finally:
            engine.close()

    def _train(self, engine: Engine, batches: Batches, first: int) -> None:
        stage, ranks, data = self._stage, self._ranks, self._job.config.data
        skipped, window = 0, _Window(batches, first)
        bad = BadSamples(self._job.run, self._name, batches.sizes, data.bad_samples, ranks, self._log)
        with Prefetcher(batches.step, range(first, stage.steps), data.read_threads, data.prefetch) as prefetcher:
            for step in range(first, stage.steps):
                asked = time.perf_counter()
                batch = next(prefetcher)
                window.waited += time.perf_counter() - asked
                bad.meet(step + 1, batch.bad)
                torch.manual_seed(step_seed(self._job.config.seed, self._name, step, ranks.rank))
                lr = learning_rate(stage, step)
                losses, result = train_step(engine, batch, stage, lr, self._device, ranks)

                done = step + 1
                skipped = 0 if result.applied else skipped + 1
                if skipped > stage.skip_limit:
                    raise NotFiniteError(self._not_finite(done, batch.task, losses, result, skipped))
                if self._log is not None and (done % stage.log_every == 0 or done == stage.steps or skipped):
                    record = {"stage": self._name, "step": done, "samples": batches.schedule.samples(done),
                              "task": batch.task, "loss": losses, "lr": lr, "grad_norm": result.grad_norm}  # fmt: skip
                    self._log.write(record | window.measures(done) | ({} if result.applied else {"skipped": True}))
                self._keep(engine, done)

    def _keep(self, engine: Engine, done: int) -> None:
        """Validates and writes a checkpoint where they are due after `done` steps."""
        stage, scores, last = self._stage, None, done == self._stage.steps
        if isinstance(stage, FinetuneConfig) and stage.validate_every and (done % stage.validate_every == 0 or last):
            scores = self._validate(engine, done)
        if scores is not None or done % stage.checkpoint_every == 0 or last:
            commit = checkpoint.Commit(self._name, done, self._ranks.world, self._job.config.cluster.zero_stage, scores)
            ranks = self._ranks
            checkpoint.save(self._folder, engine, commit, ranks.rank, ranks.barrier, stage.keep, self._metric)

    def _validate(self, engine: Engine, done: int) -> dict[str, float | None]:
        """Scores of the validation split's captions, the same on every rank; a line of the log."""
        config, stage, ranks, started = self._job.config, self._stage, self._ranks, time.perf_counter()
        # A replica with whole weights: under ZeRO 3 the trained module has none outside of a training step.
        replica = build(config.model)
        replica.load_state_dict(engine.weights())
        samples = Samples(Folder.open(self._job.shards), Folder.open(self._job.features), "pair", "val")
        mine = predict(
            replica.to(self._device), samples, self._tokenizer, rank=ranks.rank, world=ranks.world,
            batch_size=config.evaluate.batch_size, limit=stage.validate_limit, device=self._device,
        )  # fmt: skip
        predictions = merge([ranks.gather(mine)])
        scores = ranks.share(validation_scores(predictions) if ranks.first else {})
        if self._log is not None:
            seconds = round(time.perf_counter() - started, 2)
            self._log.write({"stage": self._name, "step": done, "validation": scores, "seconds": seconds})
        return scores

    def _not_finite(self, done: int, task: str, losses: dict[str, float], result: StepResult, skipped: int) -> str:
        bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
        what = f"the loss {bad[0]}" if bad else "the gradient"
        newest = checkpoint.latest(self._folder)
        return (
            f"{self._name} step {done}, task {task}: {what} is not finite, in {skipped} steps one after another "
            f"(gradient norm {result.grad_norm}); lower --{self._name}.lr or set --{self._name}.clip; the last "
            f"checkpoint is {newest.folder if newest else 'none'}"
        )


class _Window:
    """Speed since the last line of the log."""

    def __init__(self, batches: Batches, first: int) -> None:
        self._schedule = batches.schedule
        self._step, self._time = first, time.perf_counter()
        self.waited = 0.0  # seconds without a batch

    def measures(self, step: int) -> dict[str, float]:
        """samples_per_s and steps_per_s, data_wait (seconds a step) and memory (peak MiB of rank 0); starts anew."""
        now = time.perf_counter()
        steps, samples = step - self._step, self._schedule.samples(step) - self._schedule.samples(self._step)
        elapsed, waited = max(now - self._time, 1e-9), self.waited
        self._step, self._time, self.waited = step, now, 0.0
        return {
            "samples_per_s": round(samples / elapsed, 2),
            "steps_per_s": round(steps / elapsed, 4),
            "data_wait": round(waited / max(steps, 1), 5),
            "memory": round(peak_memory_mib(), 1),
        }


def peak_memory_mib() -> float:
    """The most memory this worker has held: of the GPU where there is one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def run(job: Job, device: torch.device) -> None:
    """Everything a worker does, in the process group that is there already. All ranks call it with the same job."""
    torch.set_num_threads(job.config.cluster.threads)
    ranks = Ranks(job.config.cluster.timeout_s)
    _require_shared(job.run, ranks)
    if job.stages:
        log = RunLog(job.run, job.config) if ranks.first else None
        try:
            for name in job.stages:
                StageRun(job, name, ranks, device, log).run()
        finally:
            if log is not None:
                log.close()
    if job.exports:
        if ranks.first:
            export_model(job.run, job.config, job.tokenizer.path, job.features)
        ranks.barrier("exporting the model")
    if job.evaluation is not None:
        _caption(job, job.evaluation, ranks, device)


def _require_same_backbone(trained: dict, features: Folder) -> None:
    found = features.manifest["features"]
    differing = [name for name in trained if name not in ("of", "precision") and found.get(name) != trained[name]]
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


def _caption(job: Job, evaluation: Evaluation, ranks: Ranks, device: torch.device) -> None:
    """Captions the evaluation split with the exported model, each rank its share; rank 0 writes them."""
    settings = job.config.evaluate
    exported = load(job.run)
    _require_same_backbone(exported.backbone, Folder.open(evaluation.features))
    samples = Samples(Folder.open(evaluation.shards), Folder.open(evaluation.features), "pair", settings.split)
    mine = predict(
        exported.model.to(device), samples, exported.tokenizer, rank=ranks.rank, world=ranks.world,
        beam=settings.beam, length_penalty=settings.length_penalty, batch_size=settings.batch_size,
        limit=settings.limit, device=device, maps=True,
    )  # fmt: skip
    predictions = merge([ranks.gather(mine)])
    if ranks.first:
        write_predictions(evaluation.predictions, predictions)
    ranks.barrier("writing predictions")
