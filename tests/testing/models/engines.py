"""A small network under DeepSpeed, and its batches. Torch is imported by the ranks alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

BATCH, GROUP = 8, 2
CELLS, FEATURES, WORDS, CLASSES, LENGTH = 12, 12, 30, 5, 10
TASKS = ("mlm", "classify", "finetune", "mvcl", "fda")


def make_batch(task: str, generator: Any) -> dict[str, Any]:
    import torch

    batch = {side: torch.randn(BATCH, CELLS, FEATURES, generator=generator) for side in ("before", "after")}
    caption = torch.randint(6, WORDS, (BATCH, LENGTH), generator=generator)
    if task == "mlm":
        hidden = torch.rand(BATCH, LENGTH, generator=generator) < 0.3
        return batch | {"caption_masked": caption, "caption_labels": torch.where(hidden, caption, -1)}
    if task == "mvcl":
        return batch | {"caption": caption, "visual_mask": torch.rand(BATCH, 2 * CELLS, generator=generator) < 0.3}
    if task == "fda":
        captions = torch.randint(6, WORDS, (BATCH, 3, LENGTH), generator=generator)
        return batch | {"caption_with_negatives": captions}
    if task == "classify":
        one, two = torch.randint(0, CLASSES, (2, BATCH), generator=generator)
        return batch | {"class_before": one, "class_after": two, "same_class": (one == two).long()}
    return batch | {"caption": caption, "changed": torch.randint(0, 2, (BATCH,), generator=generator)}


def make_engine(
    zero_stage: int,
    precision: str = "fp32",
    clip: float = 0.5,
    timeout_s: int = 600,
    compiled: str = "off",
    dropout: float = 0.0,
    found: Any = None,
) -> Any:
    """A new engine and its stage; `found`: the checkpoint that it goes on from."""
    import torch

    from cluster.config.fields import ClusterConfig, StageConfig
    from cluster.training.checkpoint import load_weights
    from cluster.training.engine import Engine
    from cluster.training.saving import restore
    from idc.model.build import build
    from idc.model.config import ModelConfig

    torch.manual_seed(0)
    model = build(
        ModelConfig(
            vocab_size=WORDS, feature_dim=FEATURES, grid=(3, 4), d_model=32, heads=2, d_ff=64, cross_modal_blocks=1,
            dropout=dropout, attention_dropout=dropout, classes=CLASSES, max_length=LENGTH,
        )
    )  # fmt: skip
    stage = StageConfig(clip=clip, contrastive_group=GROUP)
    cluster = ClusterConfig(zero_stage=zero_stage, precision=precision, timeout_s=timeout_s, compile=compiled)
    if found is not None:
        model.load_state_dict(load_weights(found.weights))
    engine = Engine(model, stage, cluster, torch.device("cpu"))
    if found is not None:
        restore(found, engine)
    return engine, stage


def save(engine: Any, ranks: Any, folder: Path, step: int, keep: int = 9, stage: str = "pretrain") -> Any:
    """Writes a checkpoint and waits for it: what it took."""
    from cluster.training.checkpoint import Commit
    from cluster.training.saving import Saver

    saver = Saver(folder, ranks, 60, keep)
    saver.save(engine, Commit(stage, step, ranks.world, engine.zero_stage))
    return saver.finish()


def train(engine: Any, stage: Any, seeds: Iterable[int]) -> list[tuple[dict[str, float], float]]:
    """A step on the batch of each seed, which the ranks share: (losses, gradient norm) of each."""
    import torch
    import torch.distributed as dist

    from shards.order.permutation import rank_positions

    mine, found = rank_positions(0, BATCH, dist.get_world_size(), dist.get_rank(), GROUP), []
    for seed in seeds:
        task = ("mlm", "classify", "finetune")[seed % 3]
        batch = make_batch(task, torch.Generator().manual_seed(seed))
        found.append(take_step(engine, stage, task, [{name: tensor[mine] for name, tensor in batch.items()}]))
    return found


def take_step(engine: Any, stage: Any, task: str, parts: list[dict[str, Any]]) -> tuple[dict[str, float], float]:
    """Losses over all ranks and the gradient norm of one step on this rank's micro-batches."""
    from cluster.batches.batches import StepBatch
    from cluster.training.step import read, train_step
    from idc.losses.objectives import prepare

    group = GROUP if task in ("mvcl", "classify") else 0
    batch = StepBatch(task, [prepare(task, part, group=group) for part in parts], BATCH)
    found = read(engine, [train_step(engine, batch, stage, 1e-3)])[0]
    return found.losses, found.norm
