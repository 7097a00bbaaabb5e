"""The gallery of a report: which pairs are shown, what the verdict on each caption is, and their cards in HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from cluster.evaluation.pointing import THRESHOLD, unpack_map
from cluster.evaluation.scores import can_judge, change_of, claim_of, is_unread_reference, says, truth_of, type_of
from idc.backbone.canvas import Canvas
from idc.metrics.cider import Cider, has_weights
from idc.metrics.segmentation import spaced
from shards.blocks.grammar import agrees
from shards.reading.reader import Stream
from shards.wording.claims import is_known

THUMBNAIL = 400  # pixels of width, at most: large enough to be enlarged
JPEG_QUALITY = 82
DRAWN = 12  # pairs shown at random
EACH_WAY = 3  # best and worst pairs of each type
REFERENCES = 2  # shown of each pair; the others are in a tooltip

OUTLINE = (255, 0, 200)  # of what a sentence is about

# css class -> what a chip says
VERDICTS = {
    "right": "right",
    "partly": "right change, wrong object",
    "wrong": "wrong change",
    "missed": "change missed",
    "alarm": "false alarm",
    "silent": "says nothing",
}


@dataclass(frozen=True)
class Shown:
    """One pair with what is known of its caption. `verdict` is a key of VERDICTS, None where no truth is known."""

    prediction: Mapping[str, Any]
    kind: str | None  # change type, "none" for an unchanged pair, None = not known
    verdict: str | None
    cider: float | None

    @property
    def unfamiliar(self) -> bool | None:
        """Whether it is unlike the training pairs; None if the model does not say so."""
        far = self.prediction.get("unfamiliarity")
        return None if far is None else far > 1


@dataclass(frozen=True)
class Pictures:
    """The images of a gallery. canvas: what maps cover; threshold: above which a map is outlined (see `pointing`)."""

    stream: Stream
    canvas: Canvas
    threshold: float | None = None

    def of(self, prediction: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Both images; where the sentence says that something changed, what it is about is outlined."""
        images = self.stream.images(self.stream.find(prediction["key"]))
        where = unpack_map(prediction)
        if where is None or not says(prediction):
            return images
        level = (self.threshold or THRESHOLD) * float(where.max())
        for role, grid in zip(("before", "after"), where, strict=True):
            small = _small(Image.fromarray(images[role]))
            inside = Image.fromarray(self.canvas.on_image(grid, small.height, small.width) >= level)
            ring = ImageChops.logical_xor(inside, inside.convert("L").filter(ImageFilter.MinFilter(3)).convert("1"))
            images[role] = np.asarray(Image.composite(Image.new("RGB", small.size, OUTLINE), small, ring))
        return images


def judge(predictions: Sequence[Mapping[str, Any]]) -> list[Shown]:
    """Verdict and CIDEr of every prediction that has references."""
    pairs = [prediction for prediction in predictions if prediction["references"]]
    each: dict[str, float] = {}
    references = {str(i): [spaced(text) for text in pair["references"]] for i, pair in enumerate(pairs)}
    if has_weights(references):
        each = Cider(references).scores({str(i): spaced(pair["caption"]) for i, pair in enumerate(pairs)})
    shown = []
    for i, pair in enumerate(pairs):
        changed = change_of(pair)
        kind = "none" if changed is False else type_of(pair)
        shown.append(Shown(pair, kind, verdict(pair), each.get(str(i))))
    return shown


def verdict(pair: Mapping[str, Any]) -> str | None:
    """Which of VERDICTS a caption deserves; None where the truth is not known or cannot be read."""
    changed, truth = change_of(pair), truth_of(pair)
    claims = says(pair)
    if changed is None:
        return None
    if claims is None:
        return "silent"
    if not changed:
        return "alarm" if claims else "right"
    if not claims:
        return "missed"
    if truth is None or not is_known(truth) or not can_judge(pair):
        return None
    claim = claim_of(pair)
    if is_unread_reference(pair) or agrees(claim, dict(truth)):
        return "right"
    return "partly" if claim is not None and claim.type == truth["type"] else "wrong"


def drawn(shown: Sequence[Shown], seed: int) -> list[Shown]:
    """Pairs drawn at random, in the order of the split: what to expect of the model."""
    count = min(DRAWN, len(shown))
    places = np.random.default_rng([seed, 0x6A11E]).choice(len(shown), count, replace=False)
    return [shown[i] for i in sorted(places.tolist())]


def extremes(shown: Sequence[Shown]) -> dict[str, tuple[list[Shown], list[Shown]]]:
    """kind -> (best, worst) by CIDEr; of equals the captions that the model was surer of come first."""
    kinds = sorted({one.kind for one in shown if one.kind}, key=lambda kind: (kind == "none", kind)) or [""]
    result = {}
    for kind in kinds:
        scored = [(one.cider, one) for one in shown if one.cider is not None and (one.kind or "") == kind]
        scored.sort(key=lambda found: (-found[0], -found[1].prediction.get("log_probability", 0.0)))
        best = scored[: min(EACH_WAY, (len(scored) + 1) // 2)]
        rest = scored[len(best) :]
        rest.sort(key=lambda found: (found[0], -found[1].prediction.get("log_probability", 0.0)))
        result[kind] = [one for _, one in best], [one for _, one in rest[:EACH_WAY]]
    return {kind: pair for kind, pair in result.items() if pair[0]}


def strangest(shown: Sequence[Shown]) -> list[Shown]:
    """The pairs that are least like the training pairs, of those that are unfamiliar."""
    far = [one for one in shown if one.unfamiliar]
    return sorted(far, key=lambda one: -one.prediction["unfamiliarity"])[:EACH_WAY]


def example(shown: Sequence[Shown]) -> Shown | None:
    """The pair at the top of the page: a change said rightly, with a middling score among such."""
    right = [
        (one.cider, one) for one in shown if one.verdict == "right" and one.kind != "none" and one.cider is not None
    ]
    right.sort(key=lambda found: found[0])
    return right[len(right) // 2][1] if right else (shown[0] if shown else None)


def card(one: Shown, pictures: Pictures, large: bool = False) -> str:
    """A pair as HTML: both images, the caption with its verdict, the references."""
    prediction = one.prediction
    images = pictures.of(prediction)
    figures = "".join(
        f'<figure><img src="{thumbnail(images[role])}" alt="{role} image" loading="lazy"/>'
        f"<figcaption>{role}</figcaption></figure>"
        for role in ("before", "after")
    )
    chip = f'<span class="chip {one.verdict}">{VERDICTS[one.verdict]}</span>' if one.verdict else ""
    chip += '<span class="chip far">unlike the training pairs</span>' if one.unfamiliar else ""
    references = [*dict.fromkeys(prediction["references"])]
    more = f" (+{len(references) - REFERENCES})" if len(references) > REFERENCES else ""
    facts = [f"CIDEr {one.cider:.0f}"] if one.cider is not None else []
    if "changed_probability" in prediction:
        facts.append(f"P(changed) {prediction['changed_probability']:.2f}")
    if one.unfamiliar is not None:
        facts.append(f"unfamiliarity {prediction['unfamiliarity']:.2f}")
    return (
        f'<article class="card{" large" if large else ""}" data-kind="{escape(one.kind or "")}" '
        f'data-verdict="{one.verdict or ""}" data-far="{"far" if one.unfamiliar else ""}">'
        f'<div class="pair" title="click: switch between the two images">{figures}</div>'
        f'<p class="said">{escape(prediction["caption"]) or "<i>nothing said</i>"}</p>{chip}'
        f'<p class="truth" title="{escape(" | ".join(references), quote=True)}">'
        f"{escape(' · '.join(references[:REFERENCES]))}{more}</p>"
        f'<p class="facts">{" · ".join([*facts, escape(prediction["key"])])}</p></article>'
    )


def thumbnail(pixels: np.ndarray) -> str:
    """A data URI of a small JPEG."""
    image = _small(Image.fromarray(pixels))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _small(image: Image.Image) -> Image.Image:
    """At most THUMBNAIL pixels wide."""
    if image.width <= THUMBNAIL:
        return image
    return image.resize((THUMBNAIL, max(1, round(image.height * THUMBNAIL / image.width))), Image.Resampling.LANCZOS)
