"""Networks at the sizes that are measured, and batches of the right shapes: random features, random captions.

Shapes: B samples, N cells, F channels, L words, K negatives, R references.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluster.config.fields import FinetuneConfig, StageConfig, task_batch_size
from cluster.recipes.blocks import blocks_full
from cluster.recipes.published import clevr_change
from idc.losses.masking import mask_cells, mask_words
from idc.model.build import build
from idc.model.config import ModelConfig
from idc.model.trunk import Trunk

WORDS = (6, 14)  # of a caption, least and most
NAME_WORDS = 4  # of a class name
VOCABULARY, CLASSES = 80, 96


@dataclass(frozen=True)
class Network:
    """A model, the settings of its stages and the pairs whose features are at hand."""

    name: str
    model: ModelConfig
    stages: dict[str, StageConfig]  # by task
    pairs: int

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.stages)

    def batch_size(self, task: str) -> int:
        """Samples a step."""
        return task_batch_size(self.stages[task], task)

    def build(self, seed: int = 0) -> Trunk:
        """The model with random weights, the same for the same seed, on the CPU."""
        torch.manual_seed(seed)
        model = build(self.model)
        words = np.random.default_rng(seed).integers(6, self.model.vocab_size, (self.model.classes, NAME_WORDS))
        model.name_classes(torch.from_numpy(words))
        return model

    def comparable(self) -> Network:
        """The same without dropout, and with a learning rate that shows within a few steps: to compare two devices."""
        stages = {
            task: dataclasses.replace(stage, lr=1e-3, schedule="constant", warmup_steps=0, halve_at=())
            for task, stage in self.stages.items()
        }
        model = dataclasses.replace(self.model, dropout=0.0, attention_dropout=0.0)
        return dataclasses.replace(self, model=model, stages=stages)


@dataclass(frozen=True)
class Batch:
    """What a step is given: rows of the feature table, and everything else on the CPU.

    rows (B, 2): before and after of a pair; of a photo the first alone.
    """

    task: str
    rows: Tensor
    text: dict[str, Tensor]


def paper(small: bool) -> Network:
    """The published network and settings: batch 200, FDA 28 pairs x 7, 49 cells x 2048, d 512, 3 blocks, L = 40."""
    recipe = clevr_change()
    pretrain, finetune = recipe.pretraining["pretrain"], recipe.finetune
    model = dataclasses.replace(recipe.model, vocab_size=VOCABULARY, classes=CLASSES)
    network = Network("paper", model, _stages(pretrain, finetune, ("mlm", "mvcl", "fda", "classify")), 2000)
    return _shrunk(network, feature_dim=64, grid=(3, 3)) if small else network


def full(small: bool) -> Network:
    """Our network at the sizes of the largest recipe, blocks_full: 14 x 21 cells, d 512, 3 blocks."""
    recipe = blocks_full()
    pretrain, regions = recipe.pretraining["pretrain"], recipe.pretraining["regions"]
    sizes = {"vocab_size": VOCABULARY, "classes": CLASSES, "grid": (14, 21), "feature_dim": 272, "fine_channels": 40}
    model = dataclasses.replace(recipe.model, **sizes)
    stages = _stages(pretrain, recipe.finetune, ("mlm", "mvcl", "fda", "classify")) | {"class_labels": regions}
    network = Network("blocks_full", model, stages, 2000)
    return _shrunk(network, feature_dim=40, grid=(4, 4), fine_channels=4, cell_size=16) if small else network


def _stages(pretrain: StageConfig, finetune: FinetuneConfig, tasks: tuple[str, ...]) -> dict[str, StageConfig]:
    return dict.fromkeys(tasks, pretrain) | {"finetune": finetune}


def _shrunk(network: Network, **sizes: object) -> Network:
    """For trying the command itself: everything there, and small."""
    model = dataclasses.replace(network.model, d_model=32, heads=2, d_ff=48, cross_modal_blocks=1, **sizes)
    stages = {
        task: dataclasses.replace(stage, global_batch_size=8, micro_batch_size=8, batch_sizes={}, contrastive_group=0)
        for task, stage in network.stages.items()
    }
    return dataclasses.replace(network, model=model, stages=stages, pairs=32)


def feature_table(network: Network, device: torch.device | str, seed: int = 0) -> Tensor:
    """(2 * pairs, N, F) float16, not below 0 as after a ReLU; drawn on the device, so a seed is one of the device."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (2 * network.pairs, network.model.cells, network.model.feature_dim)
    table = torch.empty(shape, dtype=torch.float16, device=device)
    for start in range(0, len(table), 256):  # no float32 copy of the whole
        part = table[start : start + 256]
        part.copy_(torch.randn(part.shape, generator=generator, device=device).abs_())
    return table


def batches(network: Network, task: str, count: int, seed: int = 0) -> list[Batch]:
    """Batches of a task as the pipeline makes them, captions padded to max_length."""
    rng = np.random.default_rng([seed, sum(map(ord, task))])
    return [_batch(network, task, rng) for _ in range(count)]


def _batch(network: Network, task: str, rng: np.random.Generator) -> Batch:
    model, stage, size = network.model, network.stages[task], network.batch_size(task)
    pairs = rng.choice(network.pairs, size, replace=size > network.pairs)
    rows = np.stack([pairs, pairs + network.pairs], axis=1)
    text: dict[str, np.ndarray] = {}
    if task == "mlm" or (task == "finetune" and model.caption_loss == "masked"):
        masked = [mask_words(ids, rng, model.vocab_size) for ids in _captions(model, rng, size)]
        text["caption_masked"], text["caption_labels"] = map(np.stack, zip(*masked, strict=True))
    elif task == "mvcl":
        text["caption"] = _captions(model, rng, size)
        tokens = build(model).visual_tokens
        text["visual_mask"] = np.stack([mask_cells(tokens, rng) for _ in range(size)])
    elif task == "finetune":
        references = stage.references
        captions = _captions(model, rng, size * references).reshape(size, references, -1)
        text["caption"] = captions if references > 1 else captions[:, 0]
    elif task == "class_labels":
        present = np.zeros((size, model.classes), np.float32)
        present[np.arange(size), rng.integers(model.classes, size=size)] = 1
        text["present"] = present
    elif task == "classify":
        classes = rng.integers(model.classes, size=(size, 2))
        same = rng.random(size) < stage.same_class_share
        classes[same, 1] = classes[same, 0]
        text["class_before"], text["class_after"] = classes.T.copy()
        text["same_class"] = (classes[:, 0] == classes[:, 1]).astype(np.int64)
    if task == "finetune":
        text["changed"] = rng.integers(2, size=size)
    if task == "fda" or (task == "finetune" and stage.weights.get("fda", 0) > 0):
        choices = 1 + stage.negatives.count
        text["caption_with_negatives"] = _captions(model, rng, size * choices).reshape(size, choices, -1)
    return Batch(task, torch.from_numpy(rows), {name: torch.from_numpy(value) for name, value in text.items()})


def _captions(model: ModelConfig, rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, L) ids: <bos>, 6 to 14 words, <eos>, padding."""
    ids = np.full((count, model.max_length), model.pad, np.int64)
    for row, words in zip(ids, rng.integers(WORDS[0], WORDS[1] + 1, size=count), strict=True):
        row[0], row[words + 1] = model.bos, model.eos
        row[1 : words + 1] = rng.integers(6, model.vocab_size, size=words)
    return ids


def cut(text: dict[str, Tensor], pad: int, multiple: int) -> dict[str, Tensor]:
    """Captions without the columns that all rows pad, but for a multiple, as the pipeline cuts them."""
    ids = [value for name, value in text.items() if name in ("caption", "caption_masked", "caption_with_negatives")]
    if not ids:
        return text
    longest = max(int((value != pad).sum(-1).max()) for value in ids)
    longest = -(-longest // multiple) * multiple
    words = {"caption", "caption_masked", "caption_labels", "caption_with_negatives"}
    return {name: value[..., :longest] if name in words else value for name, value in text.items()}
