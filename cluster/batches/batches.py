"""From a step number to tensors: which samples, captions and masks. Everything drawn is a function of positions.

A sample's random choices (caption, negatives, masks, its partner photo) come from `shards.order.permutation.generator`
of its position in the stage, so the same global batch is the same on any number of workers and after any restart. So is
the sample that stands in for one that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster.batches.bad_samples import Bad
from cluster.batches.fda_samples import Participants
from cluster.batches.resident import Resident
from cluster.batches.samples import (
    Arrays,
    ClassIndex,
    Looks,
    Mixed,
    Samples,
    check_text,
    stack,
)
from cluster.batches.schedule import TaskSchedule
from cluster.batches.texts import Texts
from cluster.config.fields import (
    AugmentConfig,
    FinetuneConfig,
    StageConfig,
    names_regions,
    task_batch_size,
    task_group,
    task_micro_batches,
)
from cluster.config.tasks import TASKS, compares_samples
from cluster.images.loaders import Loaders
from cluster.images.looks import draw_looks
from idc.captioning.tokenizer import Tokenizer
from idc.losses.masking import mask_cells
from idc.losses.objectives import OBJECTIVES, loss_names, prepare
from idc.model.config import NOT_SCORED, ModelConfig
from shards.format.record import ROLES
from shards.order.mixture import Mixture
from shards.order.permutation import generator, rank_positions
from shards.order.replacement import TRIES, replacements
from shards.reading.reader import Folder
from shards.wording.frequent_words import NameFinder

UNKNOWN_CHANGE = -1


@dataclass(frozen=True)
class StepBatch:
    """One rank's part of a step: its micro-batches in order, prepared (`idc.losses.objectives.prepare`)."""

    task: str  # as the configuration names it: photo_mlm is mlm on photos
    micro_batches: list[dict[str, Tensor]]
    samples: int  # of the whole step, all ranks
    bad: list[Bad] = field(default_factory=list)  # samples of this rank that others stand in for
    names: list[str] = field(default_factory=list)  # of this rank's samples, folder/key

    @property
    def model_task(self) -> str:
        """The task as the model names it."""
        return TASKS[self.task].objective

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses of the step, in the order of each micro-batch's counts."""
        return loss_names(self.model_task, self.micro_batches[0])


class Drawn(NamedTuple):
    """The sample at one position."""

    number: int  # in its stream
    record: dict
    arrays: Arrays
    rng: np.random.Generator  # of what the task draws
    name: str
    bad: list[Bad]  # samples that it stands in for
    place: tuple[int, int]  # epoch, position


class Batches:
    """Makes the batches of one stage for one rank. `step(n)` has no side effects and may be called from any thread."""

    def __init__(
        self,
        shards: str | Path,
        features: Path | None,
        tokenizer: Tokenizer,
        model: ModelConfig,
        visual_tokens: int,
        stage: StageConfig,
        seed: int,
        rank: int,
        world: int,
        mixed: Sequence[Mixed] = (),
        photos: Mixed | None = None,
        classes: Mixed | None = None,
        names: Sequence[str] = (),
        resident: Resident | None = None,
        multiple: int = 1,
        room: int = 1,
        loaders: Loaders | None = None,
        augment: AugmentConfig | None = None,
    ) -> None:
        """`seed` is the stage's own (schedule.stage_seed). Raises DataError for data that lack what the tasks need.

        Pairs come from the first folder and all `mixed` in the ratios of their weights; captioned photos from `photos`,
        class-labelled ones from `classes`, where they are given, else from the first folder. names: what the labels
        tasks look for in images, by class id. resident: where all features are held in memory; batches then name rows
        of it in place of features. multiple: lengths of captions are rounded up to it, room: numbers of scored words
        and hidden cells, so that shapes repeat. loaders: of a live backbone, where there are no features; batches then
        have pixels, shown as `augment` says.
        """
        self.schedule = TaskSchedule(stage, seed)
        self._texts = Texts(tokenizer, model, stage.negatives, multiple)
        self._model, self._visual_tokens = model, visual_tokens
        self._stage, self._seed, self._rank, self._world = stage, seed, rank, world
        self._room = room
        self._augment = augment
        self._each: Callable[..., Iterator[Any]] = map if loaders is None else loaders.map
        first = Mixed(shards, features)
        folders = {"pair": [first, *mixed], "photo": [photos or first], "class": [classes or first]}
        self._named, class_names = NameFinder(names), Folder.open(folders["class"][0].shards).manifest["classes"]
        # Numbers among the names: a class is one of them, or it is named by several words.
        self._of_class = [self._named.numbers([name]) for name in class_names] if model.attributes else None
        kinds = dict.fromkeys(TASKS[task].stream for task in self.schedule.tasks)
        self._samples: dict[str, list[Samples]] = {}
        self._mixtures: dict[str, Mixture] = {}
        for kind in kinds:
            self._samples[kind] = [
                Samples(folder.shards, folder.features, kind, "train", resident, loaders) for folder in folders[kind]
            ]
            sizes = [len(samples) for samples in self._samples[kind]]
            self._mixtures[kind] = Mixture(sizes, [folder.weight for folder in folders[kind]])
        self._references = stage.references if isinstance(stage, FinetuneConfig) else 1
        self._aligns_captions = isinstance(stage, FinetuneConfig) and stage.weights.get("fda", 0) > 0
        self._names_regions = names_regions(stage, model)
        self._participants = {
            kind: [Participants(samples, stage.negatives) for samples in found] for kind, found in self._samples.items()
        }
        if "class" in kinds:
            self._classes = ClassIndex(self._samples["class"][0], model.classes)
        for task in self.schedule.tasks:
            needs_negatives = task.endswith("fda") or (task == "finetune" and self._aligns_captions)
            if TASKS[task].stream != "class":
                for samples in self._samples[TASKS[task].stream]:
                    check_text(samples, stage.negatives if needs_negatives else None)

    def step(self, step: int) -> StepBatch:
        """The micro-batches of this rank in step 0, 1, ..."""
        task, start = self.schedule.task(step), self.schedule.start(step)
        batch_size = task_batch_size(self._stage, task)
        number, size = task_micro_batches(self._stage, task, self._world)
        positions, real = self._share(task, start, self._rank)
        hidden = self._hidden_room(task, start) if "mvcl" in task else 0
        group = self._stage.contrastive_group if compares_samples(task) else 0
        bad: list[Bad] = []
        names: list[str] = []
        micro_batches = []
        for rows in (slice(part * size, (part + 1) * size) for part in range(number)):
            batch = self._assemble(task, positions[rows], bad, names)
            if not real[rows].all():
                batch["real"] = torch.from_numpy(real[rows])
            step_batch = StepBatch(task, [batch], batch_size)
            batch = prepare(step_batch.model_task, batch, self._model.pad, group, hidden, self._room)
            micro_batches.append(batch)
        return StepBatch(task, micro_batches, batch_size, bad, names)

    def _share(self, task: str, start: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of a rank in the step that begins at `start`, and which of them are its own, (n,) both.

        Every rank has as many: those that lack some are given ones that they have already, or the step's first.
        """
        group, batch_size = task_group(self._stage, task), task_batch_size(self._stage, task)
        number, size = task_micro_batches(self._stage, task, self._world)
        own = rank_positions(start, batch_size, self._world, rank, group)
        filled = np.full(number * size, own[0] if len(own) else start)
        filled[: len(own)] = own
        return filled, np.arange(number * size) < len(own)

    def _hidden_room(self, task: str, start: int) -> int:
        """The most cells that a micro-batch of any rank hides in a step, where the whole batch is compared.

        Ranks bring their hidden cells together in arrays of one shape. What a sample hides is a function of its
        position, so no rank has to ask the others.
        """
        if self._stage.contrastive_group or self._world == 1:
            return 0
        most, (_, size) = 0, task_micro_batches(self._stage, task, self._world)
        kind = TASKS[task].stream
        images = 1 if kind == "photo" else 2
        for rank in range(self._world):
            positions, real = self._share(task, start, rank)
            epochs = self._mixtures[kind].locate(positions, self._seed)[1]
            hidden = [
                int(mask_cells(self._visual_tokens, generator(self._seed, epoch, position, task), images).sum())
                for position, epoch in zip(positions.tolist(), epochs.tolist(), strict=True)
            ]
            most = max(most, *(np.array(hidden) * real).reshape(-1, size).sum(axis=1).tolist())
        return most

    def some_features(self) -> Tensor:
        """Features (n, N, F) of some samples of each kind, the same on every rank: to standardise channels by."""
        found = [samples.some_features() for of_kind in self._samples.values() for samples in of_kind]
        return torch.cat(found)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of samples of each stream, by its name."""
        return {samples.name: len(samples) for found in self._samples.values() for samples in found}

    def _assemble(self, task: str, positions: np.ndarray, bad: list[Bad], names: list[str]) -> dict[str, Tensor]:
        kind = TASKS[task].stream
        located = np.stack([positions, *self._mixtures[kind].locate(positions, self._seed)], axis=1).tolist()
        drawn = list(self._each(lambda place: self._drawn(task, kind, *place), located))
        for one in drawn:
            bad += one.bad
            names.append(one.name)
        records, draws = [one.record for one in drawn], [one.rng for one in drawn]
        batch = stack([one.arrays for one in drawn])
        if task == "classify":
            return self._classify(drawn, batch, bad, names)
        if task == "finetune":
            return batch | self._finetune(records, draws)
        return batch | self._keys(OBJECTIVES[TASKS[task].objective].keys, kind, records, draws)

    def _drawn(self, task: str, kind: str, position: int, source: int, epoch: int, i: int) -> Drawn:
        """The sample of a position, or what stands in for it."""
        samples, bad = self._samples[kind][source], list[Bad]()
        looks = self._looks(task, kind, epoch, position)
        others = replacements(position, len(samples), self._seed, epoch)
        found = samples.first_good(chain([i], others), bad, looks)
        aligned = TASKS[task].objective == "fda"
        if aligned or (task == "finetune" and self._aligns_captions):
            rng = generator(self._seed, epoch, position, f"{task}/unchanged")
            found = self._participants[kind][source].choose(found, others if aligned else None, rng, bad, looks)
        rng = generator(self._seed, epoch, position, task)
        return Drawn(*found, rng, samples.name_of(found[0]), bad, (epoch, position))

    def _looks(self, task: str, kind: str, epoch: int, position: int) -> Looks | None:
        """How the images of a position are shown, once it is known which sample that is; None: as they are."""
        augment = self._augment
        if augment is None or augment == AugmentConfig():
            return None
        rng = generator(self._seed, epoch, position, f"{task}/looks")
        return lambda record: draw_looks(augment, record, ROLES[kind], rng)

    def _keys(
        self, keys: Sequence[str], kind: str, records: list[dict], draws: list[np.random.Generator]
    ) -> dict[str, Tensor]:
        """What an objective wants beside the images, drawn in the order of its keys."""
        made: dict[str, Tensor] = {}
        for key in keys:
            if key == "visual_mask":
                images = 1 if kind == "photo" else 2
                masks = np.stack([mask_cells(self._visual_tokens, rng, images) for rng in draws])
                made[key] = torch.from_numpy(masks)
            elif key == "caption":
                made[key] = self._texts.captions(records, draws)
            elif key == "caption_masked":  # and caption_labels
                made |= self._texts.masked(self._texts.captions(records, draws), draws)
            elif key == "caption_with_negatives":
                made[key] = self._texts.with_negatives(records, draws)
            elif key == "present":
                made[key] = self._present(records)
            else:
                assert key in made, f"nothing makes {key}"
        return made

    def _present(self, records: list[dict]) -> Tensor:
        """(B, classes) 1 for the class of a labelled photo, or for every class that a caption names.

        What is said of a pair without a change is not about what it shows: -1, not scored.
        """
        present = torch.zeros(len(records), self._model.classes)
        for row, record in zip(present, records, strict=True):
            if "class_id" in record:
                number = record["class_id"]
                row[number if self._of_class is None else list(self._of_class[number])] = 1
            elif record.get("changed", True) is False:
                row.fill_(NOT_SCORED)
            else:
                row[list(self._named.numbers(record["captions"]))] = 1
        return present

    def _finetune(self, records: list[dict], draws: list[np.random.Generator]) -> dict[str, Tensor]:
        references = self._references
        if self._model.caption_loss == "masked":
            batch = self._texts.masked(self._texts.captions(records, draws), draws)
        elif references == 1:
            batch = {"caption": self._texts.captions(records, draws)}
        else:
            texts = []
            for record, rng in zip(records, draws, strict=True):
                order = rng.permutation(len(record["captions"]))
                texts += [record["captions"][order[number % len(order)]] for number in range(references)]
            batch = {"caption": self._texts.encode(texts).unflatten(0, (len(records), references))}
        changed = [UNKNOWN_CHANGE if record["changed"] is None else int(record["changed"]) for record in records]
        batch["changed"] = torch.tensor(changed)
        if self._aligns_captions:
            batch["caption_with_negatives"] = self._texts.with_negatives(records, draws)
        if self._names_regions:
            batch["present"] = self._present(records)
        return batch

    def _classify(
        self, drawn: list[Drawn], photos: dict[str, Tensor], bad: list[Bad], names: list[str]
    ) -> dict[str, Tensor]:
        samples, share = self._samples["class"][0], self._stage.same_class_share
        indices = [one.number for one in drawn]

        def found(one: Drawn) -> tuple[int, Arrays, list[Bad]]:
            partners = (self._classes.partner(one.number, one.rng, share) for _ in range(1 + TRIES))
            missed: list[Bad] = []
            partner, _, arrays = samples.first_good(partners, missed, self._looks("partner", "class", *one.place))
            return partner, arrays, missed

        found_of = list(self._each(found, drawn))
        partners = [partner for partner, _, _ in found_of]
        names += map(samples.name_of, partners)
        bad += chain.from_iterable(missed for _, _, missed in found_of)
        others = stack([arrays for _, arrays, _ in found_of])
        before, after = self._classes.ids[indices], self._classes.ids[partners]
        return {
            **{name.replace("photo", "before"): value for name, value in photos.items()},
            **{name.replace("photo", "after"): value for name, value in others.items()},
            "class_before": torch.from_numpy(before),
            "class_after": torch.from_numpy(after),
            "same_class": torch.from_numpy((before == after).astype(np.int64)),
        }


def name_words(names: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """Ids (names, W) of the words of each name, padded."""
    rows = [torch.tensor(tokenizer.encode(name), dtype=torch.int64) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, dtype=torch.int64)
