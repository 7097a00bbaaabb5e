"""The largest micro-batch that a recipe can give of a task, made of nothing: captions of the greatest length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cluster.config.fields import FinetuneConfig, StageConfig, names_regions, task_micro_batches
from cluster.config.tasks import TASKS, compares_samples
from idc.losses.masking import mask_cells, mask_words
from idc.losses.objectives import OBJECTIVES, prepare
from idc.model.config import ModelConfig

SEED = 0


def mock_batch(
    task: str,
    stage: StageConfig,
    model: ModelConfig,
    visual_tokens: int,
    world: int,
    multiple: int = 1,
    room: int = 1,
    canvas: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """A prepared micro-batch of a worker among `world`, on the CPU; multiple and room as of `cluster.batches`; canvas:
    height and width of its images, where it has these in place of features."""
    rng, size = np.random.default_rng(SEED), task_micro_batches(stage, task, world)[1]
    kind, objective = TASKS[task].stream, TASKS[task].objective
    photos = kind == "photo" or (kind == "class" and task != "classify")
    features = torch.zeros(size, model.cells, model.feature_dim, dtype=torch.float16)
    if canvas is not None:
        features = torch.zeros(size, *canvas, 3, dtype=torch.uint8)
    batch = {"photo": features} if photos else {"before": features, "after": features.clone()}
    for key in OBJECTIVES[objective].keys:
        if key == "visual_mask":
            masks = [mask_cells(visual_tokens, rng, 1 if photos else 2) for _ in range(size)]
            batch[key] = torch.from_numpy(np.stack(masks))
        elif key == "caption_masked":
            batch |= _masked(model, rng, size)
        elif key == "caption_with_negatives":
            batch[key] = _captions(model, rng, size, 1 + stage.negatives.count)
        elif key == "present":
            batch[key] = torch.zeros(size, model.classes)
        elif key in ("class_before", "class_after", "same_class"):
            batch[key] = torch.zeros(size, dtype=torch.int64)
        elif key == "caption" and objective != "finetune":
            batch[key] = _captions(model, rng, size)
    if objective == "finetune":
        batch |= _finetune(stage, model, rng, size)
    group = stage.contrastive_group if compares_samples(task) else 0
    return prepare(objective, batch, model.pad, group, 0, room)


def _finetune(stage: StageConfig, model: ModelConfig, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    assert isinstance(stage, FinetuneConfig), "the task finetune belongs to the stage finetune"
    if model.caption_loss == "masked":
        batch = _masked(model, rng, size)
    else:
        batch = {"caption": _captions(model, rng, size, *([stage.references] if stage.references > 1 else []))}
    batch["changed"] = torch.ones(size, dtype=torch.int64)
    if stage.weights.get("fda", 0) > 0:
        batch["caption_with_negatives"] = _captions(model, rng, size, 1 + stage.negatives.count)
    if names_regions(stage, model):
        batch["present"] = torch.zeros(size, model.classes)
    return batch


def _captions(model: ModelConfig, rng: np.random.Generator, *shape: int) -> Tensor:
    """<bos>, words, <eos>: ids (*shape, max_length)."""
    ids = rng.integers(0, model.vocab_size, (*shape, model.max_length))
    ids[np.isin(ids, model.special_ids)] = model.unk
    ids[..., 0], ids[..., -1] = model.bos, model.eos
    return torch.from_numpy(ids)


def _masked(model: ModelConfig, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    rows = [
        mask_words(ids, rng, model.vocab_size, special=model.special_ids) for ids in _captions(model, rng, size).numpy()
    ]
    masked, labels = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return {"caption_masked": masked, "caption_labels": labels}
