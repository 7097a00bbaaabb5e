"""From a step number to tensors: which samples, captions and masks. Everything drawn is a function of positions.

A sample's random choices (caption, negatives, masks, its partner photo) come from `shards.order.generator` of its
position in the stage, so the same global batch is the same on any number of workers and after any restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.config import (
    FinetuneConfig,
    NegativesConfig,
    StageConfig,
    task_batch_size,
    task_group,
    task_micro_batch_size,
)
from cluster.schedule import STREAM_OF_TASK, TaskSchedule
from idc.config import ModelConfig
from idc.masking import mask_cells, mask_words
from idc.tokenizer import Tokenizer
from shards.errors import DataError
from shards.order import generator, locate, rank_positions
from shards.reader import Folder, Stream

UNKNOWN_CHANGE = -1
PROBED_SAMPLES = 64  # samples looked at when a stage starts, to find data that cannot serve its tasks


@dataclass(frozen=True)
class StepBatch:
    """One rank's part of a step: its micro-batches in order, ready for `model(task, batch, options)`."""

    task: str  # as the configuration names it: photo_mlm is mlm on photos
    micro_batches: list[dict[str, Tensor]]
    samples: int  # of the whole step, all ranks

    @property
    def model_task(self) -> str:
        """The task as the model names it."""
        return self.task.removeprefix("photo_").removeprefix("class_")


class Samples:
    """One kind and split of a shard folder joined with its cached features."""

    def __init__(self, shards: Folder, features: Folder, kind: str, split: str) -> None:
        self.records: Stream = shards.stream(kind, split)
        self._features: Stream = features.stream(kind, split)
        self.kind, self.split = kind, split
        if self.records.keys != self._features.keys:
            raise DataError(
                f"{features.path} has other {kind} samples of {split} than {shards.path}: delete it, to be made again"
            )
        if not len(self.records):
            raise DataError(f"{shards.path} has no {kind} samples in the split {split}")

    def __len__(self) -> int:
        return len(self.records)

    def record(self, i: int) -> dict:
        """The json of sample i."""
        return self.records.metadata(i)

    def arrays(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Grid features by role ("before" and "after", or "photo"): float32 (n, N, F)."""
        rows = [self._features.arrays(int(i)) for i in indices]
        return {role: torch.from_numpy(np.stack([row[role] for row in rows]).astype(np.float32)) for role in rows[0]}


class Batches:
    """Makes the batches of one stage for one rank. `step(n)` has no side effects and may be called from any thread."""

    def __init__(
        self,
        shards: Path,
        features: Path,
        tokenizer: Tokenizer,
        model: ModelConfig,
        visual_tokens: int,
        stage: StageConfig,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        """`seed` is the stage's own (schedule.stage_seed). Raises DataError for data that lack what the tasks need."""
        self.schedule = TaskSchedule(stage, seed)
        self._tokenizer, self._model, self._visual_tokens = tokenizer, model, visual_tokens
        self._stage, self._seed, self._rank, self._world = stage, seed, rank, world
        shard_folder, feature_folder = Folder.open(shards), Folder.open(features)
        self._class_names: list[str] = shard_folder.manifest["classes"]
        kinds = dict.fromkeys(STREAM_OF_TASK[task] for task in self.schedule.tasks)
        self._samples = {kind: Samples(shard_folder, feature_folder, kind, "train") for kind in kinds}
        self._aligns_captions = isinstance(stage, FinetuneConfig) and stage.weights.get("fda", 0) > 0
        if "class" in kinds:
            self._classes = _ClassIndex(self._samples["class"], model.classes)
        for task in self.schedule.tasks:
            needs_negatives = task.endswith("fda") or (task == "finetune" and self._aligns_captions)
            if STREAM_OF_TASK[task] != "class":
                _check_text(self._samples[STREAM_OF_TASK[task]], stage.negatives if needs_negatives else None)

    def step(self, step: int) -> StepBatch:
        """The micro-batches of this rank in step 0, 1, ..."""
        task = self.schedule.task(step)
        group, batch_size = task_group(self._stage, task), task_batch_size(self._stage, task)
        positions = rank_positions(self.schedule.start(step), batch_size, self._world, self._rank, group)
        size = task_micro_batch_size(self._stage, task, self._world)
        assert len(positions) % size == 0, "micro-batches divide a rank's share"
        micro_batches = [self._assemble(task, positions[i : i + size]) for i in range(0, len(positions), size)]
        return StepBatch(task, micro_batches, batch_size)

    def _assemble(self, task: str, positions: np.ndarray) -> dict[str, Tensor]:
        samples = self._samples[STREAM_OF_TASK[task]]
        epochs, indices = locate(positions, len(samples), self._seed)
        draws = [
            generator(self._seed, epoch, position, task)
            for epoch, position in zip(epochs.tolist(), positions.tolist(), strict=True)
        ]
        if task == "classify":
            return self._classify(samples, indices, draws)
        records = [samples.record(i) for i in indices.tolist()]
        batch = samples.arrays(indices)
        if task in ("class_labels", "photo_labels"):
            return batch | {"present": self._present(records)}
        images = 1 if samples.kind == "photo" else 2
        if task in ("mlm", "photo_mlm"):
            return batch | self._masked(self._captions(records, draws), draws)
        if task in ("mvcl", "photo_mvcl"):
            masks = np.stack([mask_cells(self._visual_tokens, rng, images) for rng in draws])
            return batch | {"caption": self._captions(records, draws), "visual_mask": torch.from_numpy(masks)}
        if task in ("fda", "photo_fda"):
            return batch | {"caption_with_negatives": self._with_negatives(records, draws)}
        return batch | self._finetune(records, draws)

    def _present(self, records: list[dict]) -> Tensor:
        """(B, classes) 1 for the class of a labelled photo, or for every class that a caption of the photo names."""
        present = torch.zeros(len(records), len(self._class_names))
        for row, record in zip(present, records, strict=True):
            if "class_id" in record:
                row[record["class_id"]] = 1
            else:
                row[classes_named(record["captions"], self._class_names)] = 1
        return present

    def _finetune(self, records: list[dict], draws: list[np.random.Generator]) -> dict[str, Tensor]:
        references = self._stage.references
        if self._model.caption_loss == "masked":
            batch = self._masked(self._captions(records, draws), draws)
        elif references == 1:
            batch = {"caption": self._captions(records, draws)}
        else:
            texts = []
            for record, rng in zip(records, draws, strict=True):
                order = rng.permutation(len(record["captions"]))
                texts += [record["captions"][order[number % len(order)]] for number in range(references)]
            batch = {"caption": self._encode(texts).unflatten(0, (len(records), references))}
        changed = [UNKNOWN_CHANGE if record["changed"] is None else int(record["changed"]) for record in records]
        batch["changed"] = torch.tensor(changed)
        if self._aligns_captions:
            batch["caption_with_negatives"] = self._with_negatives(records, draws)
        return batch

    def _classify(self, samples: Samples, indices: np.ndarray, draws: list[np.random.Generator]) -> dict[str, Tensor]:
        partners = [
            self._classes.partner(int(i), rng, self._stage.same_class_share)
            for i, rng in zip(indices, draws, strict=True)
        ]
        photos = samples.arrays([*indices.tolist(), *partners])["photo"]
        before, after = self._classes.ids[indices], self._classes.ids[partners]
        return {
            "before": photos[: len(indices)],
            "after": photos[len(indices) :],
            "class_before": torch.from_numpy(before),
            "class_after": torch.from_numpy(after),
            "same_class": torch.from_numpy((before == after).astype(np.int64)),
        }

    def _captions(self, records: list[dict], draws: list[np.random.Generator]) -> Tensor:
        """One caption of each record, drawn: ids (B, L)."""
        pairs = zip(records, draws, strict=True)
        return self._encode([record["captions"][rng.integers(len(record["captions"]))] for record, rng in pairs])

    def _encode(self, texts: list[str]) -> Tensor:
        """Ids (n, L); an empty text is a row of padding. What all rows pad is cut, unless the model sees padding."""
        ids = self._tokenizer.batch(texts, self._model.max_length)
        ids = torch.as_tensor(ids, dtype=torch.int64)
        ids[[number for number, text in enumerate(texts) if not text]] = self._model.pad
        if self._model.mask_padding:
            ids = ids[:, : int((ids != self._model.pad).sum(dim=1).max())]
        return ids

    def _masked(self, captions: Tensor, draws: list[np.random.Generator]) -> dict[str, Tensor]:
        special = self._model.special_ids
        rows = [
            mask_words(ids, rng, self._model.vocab_size, special=special)
            for ids, rng in zip(captions.numpy(), draws, strict=True)
        ]
        masked, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        return {"caption_masked": masked, "caption_labels": labels}

    def _with_negatives(self, records: list[dict], draws: list[np.random.Generator]) -> Tensor:
        """A caption and K negatives of each record: ids (B, 1 + K, L); rows of padding where there are fewer."""
        texts = []
        for record, rng in zip(records, draws, strict=True):
            texts.append(record["captions"][rng.integers(len(record["captions"]))])
            texts += draw_negatives(record, self._stage.negatives, rng)
        return self._encode(texts).unflatten(0, (len(records), 1 + self._stage.negatives.count))


def name_words(names: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """Ids (names, W) of the words of each name, padded."""
    rows = [torch.tensor(tokenizer.encode(name), dtype=torch.int64) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, dtype=torch.int64)


def classes_named(captions: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Numbers of the classes whose whole name stands in one of the captions."""
    text = " | ".join(["", *captions, ""])  # names are matched at word borders
    return [number for number, name in enumerate(classes) if f" {name} " in text]


def draw_negatives(record: dict, negatives: NegativesConfig, rng: np.random.Generator) -> list[str]:
    """K hard negatives, taken in turn from the shuffled lists of each kind; '' where the record has no more of them."""
    lists = [record.get("negatives", {}).get(kind, []) for kind in negatives.kinds]
    shuffled = [[texts[i] for i in rng.permutation(len(texts))] for texts in lists]
    rng.shuffle(shuffled)
    found = []
    for place in range(max((len(texts) for texts in shuffled), default=0)):
        found += [texts[place] for texts in shuffled if place < len(texts)]
    found = found[: negatives.count]
    return found + [""] * (negatives.count - len(found))


class _ClassIndex:
    """The class of every class-labelled photo."""

    def __init__(self, samples: Samples, classes: int) -> None:
        self.ids = np.array([samples.record(i)["class_id"] for i in range(len(samples))], dtype=np.int64)
        self._members = [np.flatnonzero(self.ids == number) for number in range(classes)]
        if len(np.unique(self.ids)) < 2:
            raise DataError(f"{samples.records.folder.path}: the task classify needs photos of two classes or more")

    def partner(self, i: int, rng: np.random.Generator, same_class_share: float) -> int:
        """Another photo: of the class of photo i with this probability, else of another class."""
        members = self._members[self.ids[i]]
        if rng.random() < same_class_share and len(members) > 1:
            return int(members[(np.searchsorted(members, i) + 1 + rng.integers(len(members) - 1)) % len(members)])
        # One of those that are not members: the place among them, moved on past each member that lies before it.
        place = rng.integers(len(self.ids) - len(members))
        return int(place + np.searchsorted(members - np.arange(len(members)), place, side="right"))


def _check_text(samples: Samples, negatives: NegativesConfig | None) -> None:
    """Raises DataError where captions are missing, or where none of the first samples has a negative of these kinds."""
    any_negative = negatives is None
    for i in range(min(len(samples), PROBED_SAMPLES)):
        record = samples.record(i)
        if not record.get("captions"):
            raise DataError(f"{samples.records.folder.path}: sample {samples.records.keys[i]} has no caption")
        if negatives is not None:
            any_negative |= any(record.get("negatives", {}).get(kind) for kind in negatives.kinds)
    if not any_negative:
        raise DataError(
            f"{samples.records.folder.path}: {samples.kind} samples have no negatives of the kinds "
            f"{', '.join(negatives.kinds)}: choose other negatives.kinds, or set the ratio and weight of fda to 0"
        )
