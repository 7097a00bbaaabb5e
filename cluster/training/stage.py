"""One training stage of one run on one worker: from its newest checkpoint, or from the start, to the last step."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.batches.bad_samples import BadSamples
from cluster.batches.batches import Batches, name_words
from cluster.batches.feed import Feed
from cluster.batches.resident import Resident
from cluster.batches.samples import Mixed, Samples
from cluster.batches.schedule import learning_rate, stage_seed, step_seed
from cluster.config.fields import FinetuneConfig
from cluster.config.tasks import TASKS
from cluster.distributed import beat
from cluster.distributed.ranks import Ranks
from cluster.distributed.stopping import Agreement
from cluster.errors import NotFiniteError, Stopped
from cluster.evaluation.alignment import ASKED, LEARNT, Alignment, aligning_task, summary
from cluster.evaluation.predict import merge, predict, with_denials
from cluster.evaluation.quick_scores import validation_scores
from cluster.images.live import Live, features_of
from cluster.tracking import goodput
from cluster.tracking.doing import Doing
from cluster.tracking.run_log import CHECKPOINTS, SKIPPED, RunLog
from cluster.tracking.shown_pairs import some_pairs
from cluster.tracking.speed import Speed, Trace
from cluster.training import checkpoint
from cluster.training.engine import Engine
from cluster.training.job import Job
from cluster.training.rehearsal import rehearse
from cluster.training.saving import Saver, Written, restore
from cluster.training.step import Measured, Numbers, read, rounding, train_step
from cluster.training.weights import load_first_weights, source_of_stage, start_from_model
from idc.captioning import model_folder
from idc.losses.training_model import TrainingModel
from idc.model.build import build
from shards.reading.reader import Folder


@dataclass(frozen=True)
class Taken:
    """A step that has been started; what it measured may still be on the device."""

    done: int  # steps of the stage, this one included
    task: str
    samples: int  # of the stage so far
    lr: float
    measured: Measured
    names: list[str]  # of this rank's samples


class StageRun:
    """One training stage of one run on one worker."""

    def __init__(
        self,
        job: Job,
        name: str,
        ranks: Ranks,
        device: torch.device,
        log: RunLog | None,
        doing: Doing,
        resident: Resident | None = None,
        live: Live | None = None,
    ) -> None:
        """`log`: of the first rank alone; `doing`: is told how far a validation is; `resident`: where features are held
        in memory; `live`: what makes them."""
        self._job, self._name, self._ranks, self._device, self._log = job, name, ranks, device, log
        self._doing, self._resident, self._live = doing, resident, live
        self._skipped = 0  # steps in a row that were left out
        self._loaders = live.loaders if live else None
        self._stage, self._folder = job.config.stage(name), job.run / "checkpoints" / name
        self._tokenizer = job.tokenizer
        self._metric = self._stage.select if isinstance(self._stage, FinetuneConfig) else None
        self._best: float | None = None  # score of the best checkpoint, by that metric

    def run(self) -> None:
        """Trains from the newest checkpoint, or from the start, to the last step."""
        config, stage, ranks = self._job.config, self._stage, self._ranks
        newest = checkpoint.newest_readable(self._folder, ranks)
        if newest is not None and newest.commit.step >= stage.steps:
            return
        torch.manual_seed(config.seed)
        model = build(config.model)
        model.name_classes(name_words(self._job.names, self._tokenizer))
        backbone = self._live.network() if self._live else None
        trained = TrainingModel(model, backbone)
        first = None if newest else source_of_stage(self._job.run, config, self._name, Path(config.root))
        batches = Batches(
            self._job.shards, self._job.features, self._tokenizer, config.model, model.visual_tokens, stage,
            stage_seed(config.seed, self._name), ranks.rank, ranks.world, self._job.mixed, self._job.photos,
            self._job.classes, self._job.names, self._resident, *rounding(self._device, config.cluster),
            self._loaders, config.data.augment,
        )  # fmt: skip
        if newest is not None:
            trained.load_state_dict(checkpoint.load_weights(newest.weights))
        else:
            some = batches.some_features()
            model.standardise(some if backbone is None else features_of(backbone, some, self._device))
        if first is not None:
            if first.name == model_folder.WEIGHTS:
                start_from_model(trained, first, self._tokenizer, self._job.backbone, stage.start_parts)
            else:
                load_first_weights(trained, first, stage.start_parts, self._job.backbone["weights_sha256"])
        engine = Engine(model, stage, config.cluster, self._device, backbone, config.backbone)
        try:
            step = 0
            if newest is not None:
                restore(newest, engine)
                step = newest.commit.step
            self._best = ranks.share(self._best_so_far())
            if self._log is not None:
                self._log.rewind(self._name, step)
            if not step:
                rehearse(engine, batches, stage, self._name, config.data, self._resident)
            saver = Saver(self._folder, ranks.apart(), config.cluster.timeout_s, stage.keep, self._metric)
            try:
                if newest is not None and self._validates(step) and newest.commit.validation is None:
                    self._make_up(engine, newest)
                self._train(engine, batches, step, saver)
                beat.left_stage()
            except BaseException:
                saver.abandon()
                raise
        finally:
            engine.close()

    def _best_so_far(self) -> float | None:
        if self._metric is None:
            return None
        top = checkpoint.best(self._folder, self._metric)
        return (top.commit.validation or {}).get(self._metric) if top else None

    def _train(self, engine: Engine, batches: Batches, first: int, saver: Saver) -> None:
        stage, data, run, schedule = self._stage, self._job.config.data, self._job.run, batches.schedule
        ranks = self._ranks
        bad = BadSamples(run, self._name, batches.sizes, data.bad_samples, ranks, self._log)
        live = self._job.config.backbone if self._live else None
        speed = Speed(self._device, engine.model, first, schedule.samples(first), live)
        trace = Trace(run, self._name, ranks.rank, self._job.config.log.profile_steps)
        agreement = Agreement(ranks)
        unread: list[Taken] = []  # steps whose numbers are still on the device
        steps = range(first, stage.steps)
        with Feed(batches, steps, data, self._device, self._resident) as feed:
            for step in steps:
                trace.step()
                asked = time.perf_counter()
                batch = next(feed)
                speed.waited(time.perf_counter() - asked)
                speed.step(batch.model_task, batch.micro_batches)
                lr = learning_rate(stage, step)
                measured = train_step(engine, batch, stage, lr, self._seed_of(step))

                done = step + 1
                unread.append(Taken(done, batch.task, schedule.samples(done), lr, measured, batch.names))
                bad.note(done, batch.bad)
                beat.stepped(self._name, done)
                stop = agreement.why(done)
                if done % stage.log_every == 0 or self._keeps(done) or self._validates(done) or stop:
                    bad.meet()
                    self._read(engine, unread, speed, self._aligned(engine, speed) if done == stage.steps else {})
                    unread = []
                started = time.perf_counter()
                scores = None
                if self._validates(done):
                    scores = self._validate(engine, done)
                    stop = stop or ("" if scores else self._asked())
                better = self._is_better(scores)
                if self._keeps(done) or better or stop:
                    commit = checkpoint.Commit(
                        self._name, done, ranks.world, engine.zero_stage, scores, samples=schedule.samples(done),
                        config=self._job.config_sha256,
                    )  # fmt: skip
                    self._note(saver.save(engine, commit))
                else:
                    self._note(saver.check())
                speed.left_out(time.perf_counter() - started)
                if stop:
                    self._note(saver.finish())
                    raise self._stopped(done, stop)
        self._note(saver.finish())
        trace.close()

    def _stopped(self, done: int, why: str) -> Stopped:
        return Stopped(f"stopped at {self._name} step {done} {why}, checkpoint committed; the same command goes on")

    def _asked(self) -> str:
        """Why any of the ranks has been asked to stop. All ranks call it."""
        return next(filter(None, self._ranks.gather([beat.asked()])))

    def _make_up(self, engine: Engine, newest: checkpoint.Checkpoint) -> None:
        """The validation that an ask to stop has cut short, and that the checkpoint written then lacks."""
        scores = self._validate(engine, newest.commit.step)
        if scores is None:
            raise self._stopped(newest.commit.step, self._asked())
        self._is_better(scores)
        if self._ranks.first:
            checkpoint.note_validation(newest, scores)

    def _seed_of(self, step: int) -> int:
        return step_seed(self._job.config.seed, self._name, step, self._ranks.rank)

    def _read(self, engine: Engine, unread: list[Taken], speed: Speed, beside: dict[str, Any]) -> None:
        """Waits for the device, once: the line of the log, and the end of a run whose steps are left out in a row.

        beside: what the line has beside the last step.
        """
        for taken, found in zip(unread, read(engine, [taken.measured for taken in unread]), strict=True):
            self._skipped = 0 if found.applied else self._skipped + 1
            last = taken is unread[-1]
            record = dict(beside) if last else {}
            if not found.applied:
                record |= {"skipped": True}
                self._note_skipped(taken, found)
            if self._log is not None and (last or not found.applied):
                measures = speed.measures(taken.done, taken.samples) if last else {}
                self._log.write(
                    {"stage": self._name, "step": taken.done, "samples": taken.samples, "task": taken.task,
                     "loss": found.losses, "lr": taken.lr, "grad_norm": found.norm} | measures | record
                )  # fmt: skip
            if self._skipped > self._stage.skip_limit:
                raise NotFiniteError(self._too_many_skipped(taken, found))

    def _note_skipped(self, taken: Taken, found: Numbers) -> None:
        """A line of skipped.jsonl on a step that was left out: which samples were in its batch. All ranks call it."""
        names = sorted(set(self._ranks.gather(taken.names)))
        if self._log is not None:
            self._log.write(
                {"stage": self._name, "step": taken.done, "task": taken.task, "norm": found.norm, "usual": found.usual,
                 "ids": names},
                SKIPPED,
            )  # fmt: skip

    def _validates(self, done: int) -> bool:
        stage, last = self._stage, done == self._stage.steps
        every = stage.validate_every if isinstance(stage, FinetuneConfig) else 0
        return bool(every) and (done % every == 0 or last)

    def _keeps(self, done: int) -> bool:
        """True if a checkpoint is due after `done` steps, whatever a validation says."""
        return done % self._stage.checkpoint_every == 0 or done == self._stage.steps

    def _is_better(self, scores: dict[str, float | None] | None) -> bool:
        """Whether these scores are of the best weights so far, which are kept: the run may be exported from them."""
        score = scores.get(self._metric) if scores and self._metric is not None else None
        if score is None or (self._best is not None and score <= self._best):
            return False
        self._best = score
        return True

    def _note(self, written: Written | None) -> None:
        if written is not None and self._log is not None:
            self._log.write({"stage": self._name, **asdict(written)}, CHECKPOINTS)

    @functools.cached_property
    def _samples(self) -> Samples:
        """Of the validation split; opened once."""
        return Samples(self._job.shards, self._job.features, "pair", "val", loaders=self._loaders)

    def _validate(self, engine: Engine, done: int) -> dict[str, float | None] | None:
        """Scores of the validation split's captions, the same on every rank; a line of the log.

        None if a rank was asked to stop meanwhile: then they are made when the run goes on, so not after the last step.
        """
        config, stage, ranks, started = self._job.config, self._stage, self._ranks, time.perf_counter()
        assert isinstance(stage, FinetuneConfig), "no other stage validates"
        samples = self._samples
        with engine.whole_model() as whole:
            mine = predict(
                whole.model, samples, self._tokenizer, rank=ranks.rank, world=ranks.world,
                batch_size=config.evaluate.batch_size, limit=stage.validate_limit, device=self._device,
                precision=config.cluster.precision, stop=beat.asked if done < stage.steps else lambda: "",
                seen=whole.seen if self._live else None,
                told=functools.partial(self._doing.at, f"{self._name} validation"),
            )  # fmt: skip
        made = ranks.gather(mine)
        if len(made) < min(stage.validate_limit or len(samples), len(samples)):
            return None
        predictions = with_denials(merge([made]), samples.records.folder)
        scores = ranks.share(validation_scores(predictions) if ranks.first else {})
        if self._log is not None:
            seconds = round(time.perf_counter() - started, 2)
            self._log.write(
                {"stage": self._name, "step": done, "validation": scores, "seconds": seconds},
                beside=lambda: {"goodput": goodput.so_far(self._job.run)},
                pairs=lambda: some_pairs(predictions, samples.records),
            )
        return scores

    def _aligned(self, engine: Engine, speed: Speed) -> dict[str, Any]:
        """How well a stage of pre-training aligns captions of the validation split, on the first rank; all call it.

        Nothing if it has no such task, or there is nothing to ask.
        """
        started = time.perf_counter()
        job, ranks, task = self._job, self._ranks, aligning_task(self._stage)
        kind = TASKS[task].stream if task else "pair"
        of = (job.photos if kind == "photo" else None) or Mixed(job.shards, job.features)
        if not task or not Folder.open(of.shards).manifest["splits"].get("val", {}).get(kind):
            return {}
        samples = Samples(of.shards, of.features, kind, "val", loaders=self._loaders)
        asked = Alignment(samples, self._stage.negatives, job.config.seed, ASKED)
        with engine.whole_model() as whole:
            right = asked.right(
                whole.model, self._tokenizer, ranks.rank, ranks.world, self._device, job.config.cluster.precision,
                whole.seen if self._live else None,
            )  # fmt: skip
        found = ranks.gather(right)
        told = {}
        if self._log is not None and found:
            trained = Samples(of.shards, of.features, kind, "train", loaders=self._loaders)
            learnt = Alignment(trained, self._stage.negatives, job.config.seed, LEARNT)
            told = {"alignment": summary(found, asked, learnt)}
        speed.left_out(time.perf_counter() - started)
        return told

    def _too_many_skipped(self, taken: Taken, found: Numbers) -> str:
        name, newest = self._name, checkpoint.latest(self._folder)
        bad = [loss for loss, value in found.losses.items() if not math.isfinite(value)]
        if math.isfinite(found.norm):
            assert found.usual is not None, "a finite gradient is left out beside others alone"
            what = (
                f"the gradient is {found.norm / found.usual:.0f} times what it usually is (--{name}.spike_factor "
                f"{self._stage.spike_factor:g})"
            )
        else:
            what = (f"the loss {bad[0]}" if bad else "the gradient") + " is not finite"
        start = f"from step {newest.commit.step}" if newest else "from the start of the stage"
        clip = f"below {self._stage.clip:g}" if self._stage.clip else "(now none)"
        return (
            f"{name} step {taken.done}, task {taken.task}: {what}, in {self._skipped} steps one after another "
            f"(gradient norm {found.norm:g}; {SKIPPED} names the samples); the same command with --{name}.lr below "
            f"{self._stage.lr:g}, or --{name}.clip {clip}, goes on {start}"
        )
