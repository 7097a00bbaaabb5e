"""Our architecture on published data sets: the recipe `pairs` with their folders, image sizes and lengths of sentences.

Features are those of the installed backbone, cached: minutes to hours on CPUs. How long a recipe trains goes by the
number of its pairs, as in `pairs`. `cluster.recipes.gpus` makes NAME_gpu of each.
"""

from __future__ import annotations

import dataclasses

from cluster.config.fields import BackboneConfig, Config
from cluster.recipes.pairs import pairs


def _ours(name: str, size: tuple[int, int], max_length: int, labelled: bool, photos: str = "") -> Config:
    """labelled: it is known which pairs have not changed."""
    base = pairs()
    weights = base.finetune.weights if labelled else base.finetune.weights | {"changed": 0.0}
    return dataclasses.replace(
        base,
        name=f"{name}_idc",
        data=dataclasses.replace(base.data, shards=f"data/{name}", photos=photos),
        backbone=BackboneConfig(size=size),
        model=dataclasses.replace(base.model, max_length=max_length),
        finetune=dataclasses.replace(base.finetune, weights=weights),
    )


def clevr_change_idc() -> Config:
    """CLEVR-Change, our architecture: nothing but its pairs and captions."""
    return _ours("clevr_change", size=(224, 336), max_length=40, labelled=True)


def birds_to_words_idc() -> Config:
    """Birds-to-Words, our architecture; captioned photos of CUB-200-2011 teach the words of birds first."""
    config = _ours("birds_to_words", size=(224, 224), max_length=80, labelled=False, photos="data/cub")
    stages = {
        name: dataclasses.replace(config.stage(name), ratios=config.stage(name).ratios | {task: 1.0})
        for name, task in (("regions", "photo_labels"), ("pretrain", "photo_mlm"))
    }
    return dataclasses.replace(config, pretraining=config.pretraining | stages)


def spot_the_diff_idc() -> Config:
    """Spot-the-Diff, our architecture. For the protocol "multi" give --model.max_length 80."""
    return _ours("spot_the_diff", size=(224, 352), max_length=40, labelled=False)


def image_editing_request_idc() -> Config:
    """Image-Editing-Request, our architecture."""
    return _ours("image_editing_request", size=(224, 224), max_length=40, labelled=False)


def levir_cc_idc() -> Config:
    """LEVIR-CC, our architecture: satellite images of 256 x 256 pixels, half of the pairs unchanged."""
    return _ours("levir_cc", size=(256, 256), max_length=48, labelled=True)
