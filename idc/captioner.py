"""What people call: two images in, one sentence about what differs out.

captioner = Captioner.load("runs/blocks")
captioner.caption("before.jpg", "after.jpg").text
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from idc.backbone.backbone import Backbone
from idc.backbone.canvas import Canvas, light_up
from idc.backbone.pixels import rgb
from idc.captioning import model_folder
from idc.captioning.decoding import generate
from idc.captioning.heat_map import change_map

ImageLike = str | Path | Image.Image | np.ndarray
PIXEL_LIMIT = 64 * 1024 * 1024  # by the header, before anything is decoded


class ImageError(ValueError):
    """An image that cannot be used; the message is one line with its name."""


@dataclass(frozen=True)
class Caption:
    """One pair captioned.

    changed_probability: that the images differ, by the model's changed/unchanged head. alternatives: sentences with
    their log-probability, best first; the first is `text`. where: (2, rows, columns), how much the sentence is about
    each place of before and after, 0 to 1 = the most (`idc.captioning.heat_map`); a grid over the canvas of the
    backbone. None if no maps were asked for.
    """

    text: str
    changed_probability: float
    alternatives: tuple[tuple[str, float], ...]
    where: np.ndarray | None


class Captioner:
    """A trained model with its backbone and tokenizer."""

    def __init__(self, exported: model_folder.Exported, backbone: Backbone, device: str | torch.device = "cpu") -> None:
        self._exported = exported
        self._backbone = backbone
        self._device = torch.device(device)
        self._canvas = Canvas.of(exported.backbone)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", backbone_weights: str = "") -> Captioner:
        """From a run folder or its model/ folder. backbone_weights: a local file, where the backbone's weights come
        neither with pip nor from the hub. ValueError, one line, where something is missing or does not fit."""
        exported = model_folder.load(path, device)
        weights = exported.backbone_weights or backbone_weights
        return cls(exported, Backbone.from_description(exported.backbone, weights, device), device)

    def caption(
        self,
        before: ImageLike,
        after: ImageLike,
        beam: int | None = None,
        length_penalty: float | None = None,
        maps: bool = True,
    ) -> Caption:
        """What changed from `before` to `after`: paths, PIL images or uint8 arrays (H, W, 3), of any size.

        beam: sentences kept while searching, and the number of alternatives; None = as the model was evaluated.
        maps: whether to find the places too that the sentence is about, which takes as long as the sentence.
        Raises ImageError naming an image that cannot be used.
        """
        return self.captions([(before, after)], beam, length_penalty, maps)[0]

    def captions(
        self,
        pairs: Sequence[tuple[ImageLike, ImageLike]],
        beam: int | None = None,
        length_penalty: float | None = None,
        maps: bool = True,
    ) -> list[Caption]:
        """`caption` of many pairs at once, which is faster; all of them pass through the model together."""
        if not pairs:
            return []
        decoding = self._exported.decoding
        images = [_pixels(image, role) for pair in pairs for image, role in zip(pair, ("before", "after"), strict=True)]
        features = self._backbone.features(images).float().to(self._device)
        pairs_of_features = {"before": features[0::2], "after": features[1::2]}
        made = generate(
            self._exported.model,
            pairs_of_features,
            decoding.beam if beam is None else beam,
            decoding.length_penalty if length_penalty is None else length_penalty,
        )
        found = change_map(self._exported.model, pairs_of_features, made.tokens).cpu().numpy() if maps else None
        results = []
        for number in range(len(pairs)):
            sentences: dict[str, float] = {}
            rows = zip(made.alternatives[number], made.alternative_log_probability[number].tolist(), strict=True)
            for ids, log_probability in rows:
                if np.isfinite(log_probability):
                    sentences.setdefault(self._exported.tokenizer.decode(ids.tolist()), log_probability)
            alternatives = tuple(sentences.items())
            where = None if found is None else found[number] / (float(found[number].max()) or 1.0)
            results.append(Caption(alternatives[0][0], float(made.changed[number]), alternatives, where))
        return results

    def heat_map(self, caption: Caption, before: ImageLike, after: ImageLike) -> Image.Image:
        """The two images of `caption` side by side, with the places that it is about lit up in red.

        ValueError for a caption without maps.
        """
        if caption.where is None:
            raise ValueError("this caption has no map to draw: ask for it with maps=True")
        lit = []
        for grid, image, role in zip(caption.where, (before, after), ("before", "after"), strict=True):
            pixels = _pixels(image, role)
            lit.append(light_up(pixels, self._canvas.on_image(grid, *pixels.shape[:2])))
        both = Image.new("RGB", (lit[0].width + lit[1].width, max(image.height for image in lit)))
        both.paste(lit[0], (0, 0))
        both.paste(lit[1], (lit[0].width, 0))
        return both


def _pixels(image: ImageLike, role: str) -> np.ndarray:
    """uint8 RGB (H, W, 3), upright."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ImageError(f"{role}: an array must be uint8 of shape (H, W, 3), not {image.dtype} of {image.shape}")
        return image
    if isinstance(image, Image.Image):
        try:
            return rgb(image)
        except ValueError as error:
            raise ImageError(f"{role}: {error}") from None
    path = Path(image)
    try:
        # From bytes, as packing reads: a TIFF that Pillow maps from the disk may come out turned and torn.
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            if opened.width * opened.height > PIXEL_LIMIT:
                raise ImageError(f"{path} has {opened.width} x {opened.height} pixels; make it smaller")
            return rgb(opened)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} cannot be read as an image ({' '.join(str(error).split())})") from None
