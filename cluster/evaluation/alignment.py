"""How well fine-grained difference aligning does on pairs that are not trained on, beside what the text alone gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.batches.fda_samples import Participants, draw_list
from cluster.batches.samples import Samples
from cluster.config.fields import FinetuneConfig, NegativesConfig, StageConfig
from idc.captioning.precision import bf16
from idc.captioning.tokenizer import Tokenizer
from idc.losses.fda import caption_similarities
from idc.model.trunk import Trunk
from shards.errors import DataError, Unreachable
from shards.negatives.text_probe import picked
from shards.order.permutation import generator

ASKED, LEARNT = 400, 2000  # samples, evenly spread, that are aligned, and that the text alone is learnt from
BATCH = 16  # samples at once

Asked = tuple[int, list[str]]  # a sample, and its caption with its negatives, the caption first


def aligning_task(stage: StageConfig) -> str | None:
    """The task of a stage of pre-training by which captions are aligned: of pairs if there is such, else of photos."""
    if isinstance(stage, FinetuneConfig):
        return None
    return next((task for task in ("fda", "photo_fda") if stage.ratios.get(task)), None)


class Alignment:
    """The lists of some samples, and what picks the true caption of each."""

    def __init__(self, samples: Samples, negatives: NegativesConfig, seed: int, most: int) -> None:
        """Lists are drawn as a stage draws them, from at most so many samples; one that cannot be read is passed over.

        The same on every rank.
        """
        participants = Participants(samples, negatives)
        self._samples = samples
        self.lists: list[Asked] = []
        for place in np.linspace(0, len(samples) - 1, min(len(samples), most)).astype(int).tolist():
            rng = generator(seed, 0, place, "alignment")
            try:
                record = samples.record(place)
            except Unreachable:
                raise
            except DataError:
                continue
            if record["captions"] and participants.takes_part(record, rng):
                texts = [text for text in draw_list(record, negatives, rng) if text]
                if len(texts) > 1:
                    self.lists.append((place, texts))

    def right(
        self,
        model: Trunk,
        tokenizer: Tokenizer,
        rank: int,
        world: int,
        device: torch.device,
        precision: str,
        seen: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None,
    ) -> list[bool]:
        """Of every world-th list from `rank` on whose images can be read: whether its caption is nearest to them.

        No communication.
        """
        mine, found = self.lists[rank::world], []
        model.eval()
        half = precision == "bf16" and device.type == "cuda"
        for start in range(0, len(mine), BATCH):
            read = [(arrays, texts) for place, texts in mine[start : start + BATCH] if (arrays := self._arrays(place))]
            if not read:
                continue
            lists = [texts for _, texts in read]
            images: Mapping[str, Tensor] = {
                role: torch.cat([arrays[role] for arrays, _ in read]).to(device) for role in read[0][0]
            }
            with torch.no_grad(), bf16(model, device) if half else nullcontext():
                shown = images if seen is None else seen(images)
                pair = model.encode_pair(model.embed_images(shown))
                ids = _encoded(model, tokenizer, lists)
                nearest = caption_similarities(model, pair, ids.to(device)).argmax(dim=1)
            found += (nearest == 0).tolist()
        return found

    def _arrays(self, place: int) -> dict[str, Tensor] | None:
        """The features or pixels of a sample, None if they cannot be read."""
        try:
            return self._samples.arrays([place])
        except Unreachable:
            raise
        except DataError:
            return None


def summary(right: Sequence[bool], asked: Alignment, learnt: Alignment) -> dict[str, Any]:
    """Percent of the lists `asked`: {"fda", "text_alone", "chance", "lists"}.

    text_alone: of a classifier that sees no image, and has learnt from other lists; None where they are too few.
    """
    lists = [texts for _, texts in asked.lists]
    return {
        "fda": round(100 * float(np.mean(right)), 1),
        "text_alone": picked([texts for _, texts in learnt.lists], lists),
        "chance": round(100 * float(np.mean([1 / len(texts) for texts in lists])), 1),
        "lists": len(lists),
    }


def _encoded(model: Trunk, tokenizer: Tokenizer, lists: Sequence[Sequence[str]]) -> Tensor:
    """Ids (B, most, L); rows of padding where a list is shorter than another."""
    most, pad = max(map(len, lists)), model.config.pad
    texts = [text for of in lists for text in [*of, *[""] * (most - len(of))]]
    ids = torch.as_tensor(tokenizer.batch(texts, model.config.max_length), dtype=torch.int64)
    ids[[number for number, text in enumerate(texts) if not text]] = pad
    return ids.unflatten(0, (len(lists), most))
