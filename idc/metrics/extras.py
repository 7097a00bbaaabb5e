"""Metrics that need parts which nobody has by chance: SPICE, BERTScore and CLIPScore; null with what is missing.

Nothing is downloaded here: jars and weights are used where they lie already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idc.metrics.java_process import run_java

TIME_LIMIT_S = 3600.0  # of SPICE, which parses every sentence
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
BERT, BERT_LAYER = "roberta-large", 17  # as bert_score has them for English
CLIP, CLIP_WEIGHT, CLIP_PROMPT = "openai/clip-vit-base-patch32", 2.5, "A photo depicts "
AT_ONCE = 32
_NOT_ASKED = "not asked for (--extras)"

Pairs = Sequence[Mapping[str, Any]]


class Missing(Exception):
    """A part that a metric needs is not there; the message says which, and what brings it."""


def extra_scores(pairs: Pairs, asked: Collection[str], image: Callable[[str], np.ndarray]) -> dict[str, Any]:
    """{"SPICE", "BERTScore", "CLIPScore"} in percent, means over pairs; None with "reasons"; "how" each is made.

    pairs: {"key", "caption", "references"}, those without references are left out. asked: names of EXTRAS; others are
    not computed. image: key -> the image after the change, uint8 (height, width, 3), read for CLIPScore alone.
    """
    pairs = [pair for pair in pairs if pair["references"]]
    found: dict[str, Any] = {}
    reasons = {}
    for name, (compute, _) in EXTRAS.items():
        found[name], why = _run(compute, pairs, image) if name in asked else (None, _NOT_ASKED)
        if found[name] is None:
            reasons[name] = why
    return found | {"how": {name: how for name, (_, how) in EXTRAS.items()}} | ({"reasons": reasons} if reasons else {})


def _run(
    compute: Callable[[Pairs, Any], float], pairs: Pairs, image: Callable[[str], np.ndarray]
) -> tuple[float | None, str]:
    """What a metric gives, or None and why. Its library may break with the version of another: that costs no other."""
    try:
        return compute(pairs, image), ""
    except Missing as missing:
        return None, str(missing)
    except Exception as error:
        return None, f"its library failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _spice(pairs: Pairs, _: object) -> float:
    from pycocoevalcap import spice

    folder = Path(spice.__file__).parent / "lib"
    missing = [name for name in SPICE_JARS if not (folder / name).is_file()]
    if missing:
        raise Missing(f"{missing[0]} is not in {folder} (python -m pycocoevalcap.spice.get_stanford_models fetches it)")
    request = [
        {"image_id": number, "test": pair["caption"], "refs": list(pair["references"])}
        for number, pair in enumerate(pairs)
    ]
    made, why = run_java({"spice": request}, time.monotonic() + TIME_LIMIT_S)
    if made is None:
        raise Missing(why)
    return 100 * float(np.mean(made))


def _cached(name: str) -> str:
    """The folder of a model's weights in the Hugging Face cache; Missing if they are not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError:
        raise Missing(f"{name} is not in the Hugging Face cache (hf download {name})") from None


def _bert_score(pairs: Pairs, _: object) -> float:
    try:
        from bert_score import score
    except ImportError as error:
        raise Missing(f"{error.name or error}: pip install bert-score brings it") from None
    weights = _cached(BERT)
    # Empty sentences have no token that could be found again: they count as 0, as bert_score itself has them.
    speaking = [pair for pair in pairs if pair["caption"].strip()]
    said = [pair["caption"] for pair in speaking]
    wanted = [[text for text in pair["references"] if text.strip()] for pair in speaking]
    if not said:
        return 0.0
    _, _, f1 = score(said, wanted, model_type=weights, num_layers=BERT_LAYER, batch_size=AT_ONCE)
    return 100 * float(f1.sum()) / len(pairs)


def _clip_score(pairs: Pairs, image: Callable[[str], np.ndarray]) -> float:
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise Missing(f"{error.name or error}: pip install transformers brings it") from None
    weights = _cached(CLIP)
    import torch

    model, process = CLIPModel.from_pretrained(weights).eval(), CLIPProcessor.from_pretrained(weights)
    cosines = []
    with torch.inference_mode():
        for some in _batches(pairs):
            texts = [CLIP_PROMPT + pair["caption"] for pair in some]
            images = [image(pair["key"]) for pair in some]
            inputs = process(text=texts, images=images, return_tensors="pt", padding=True, truncation=True)
            made = model(**inputs)
            seen, said = (torch.nn.functional.normalize(one, dim=-1) for one in (made.image_embeds, made.text_embeds))
            cosines += (seen * said).sum(-1).tolist()
    return 100 * CLIP_WEIGHT * float(np.maximum(cosines, 0).mean())


def _batches(pairs: Pairs) -> Iterator[Pairs]:
    for first in range(0, len(pairs), AT_ONCE):
        yield pairs[first : first + AT_ONCE]


EXTRAS: dict[str, tuple[Callable[[Pairs, Any], float], str]] = {
    "SPICE": (_spice, "F of scene graphs (Anderson et al. 2016), spice-1.0.jar of pycocoevalcap, sentences as written"),
    "BERTScore": (_bert_score, f"F1 of bert_score (Zhang et al. 2020), {BERT} layer {BERT_LAYER}, no rescaling"),
    "CLIPScore": (
        _clip_score,
        f"{CLIP_WEIGHT} x cosine of the sentence and the image after the change (Hessel et al. 2021), {CLIP}; the "
        "image before has no say, so it tells little of a change",
    ),
}
