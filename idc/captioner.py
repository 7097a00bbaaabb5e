"""What people call: two images in, one sentence about what differs out.

captioner = Captioner.load("runs/blocks")
captioner.caption("before.jpg", "after.jpg").text
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from idc.backbone.backbone import Backbone
from idc.backbone.canvas import Canvas, light_up
from idc.backbone.pixels import ImageError as ImageError  # what users catch
from idc.captioning import model_folder
from idc.captioning.decoding import generate
from idc.captioning.heat_map import change_map
from idc.captioning.images import ImageLike, pixels_of
from idc.captioning.precision import bf16, choose_device, choose_precision
from idc.captioning.results import Alternative, Caption

Pair = tuple[ImageLike, ImageLike]
BATCH = 16  # pairs


class Captioner:
    """A trained model with its backbone and tokenizer.

    Threads may share one: they read images side by side and take turns at the model, so that memory stays that of one
    batch.
    """

    def __init__(
        self,
        exported: model_folder.Exported,
        backbone: Backbone,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        urls: bool = False,
    ) -> None:
        self._exported = exported
        self._backbone = backbone
        self._device = torch.device(device)
        self._precision = precision
        self._urls = urls
        self._canvas = Canvas.of(exported.backbone)
        self._model_is_free = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        precision: str | None = None,
        backbone_weights: str = "",
        urls: bool = False,
    ) -> Captioner:
        """From a run folder or its model/ folder. ValueError, one line, if something is missing or does not fit.

        device: None = the first GPU if there is one, else the CPU. precision: "fp32" or "bf16", of the sentences;
        None = bf16 on a GPU that computes it, else fp32. backbone_weights: a local file, if the backbone's weights
        come neither with pip nor from the hub. urls: whether an image may be an http or https address.
        """
        chosen = choose_device(device)
        rounding = choose_precision(precision, chosen)
        exported = model_folder.load(model_folder.find(path), chosen)
        weights = exported.backbone_weights or backbone_weights
        backbone = Backbone.from_description(exported.backbone, weights, chosen)
        return cls(exported, backbone, chosen, rounding, urls)

    def caption(
        self,
        before: ImageLike,
        after: ImageLike,
        beam: int | None = None,
        length_penalty: float | None = None,
        maps: bool = False,
    ) -> Caption:
        """What changed from `before` to `after`: paths, Pillow images or arrays, of any size.

        Arrays are (H, W) or (H, W, 1 to 4) of bool, uint8, uint16 or floats from 0 to 1; alpha is left out. beam:
        sentences kept while searching, and the number of alternatives; None = as the model was evaluated. maps: whether
        to find the places too that the sentence is about. Raises ImageError naming an image that cannot be used.
        """
        return self.captions([(before, after)], beam, length_penalty, maps)[0]

    def captions(
        self,
        pairs: Sequence[Pair],
        beam: int | None = None,
        length_penalty: float | None = None,
        maps: bool = False,
        batch_size: int = BATCH,
    ) -> list[Caption]:
        """`caption` of many pairs, in the order given. batch_size: how many of them are in memory, and pass through the
        model, at once."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        made: list[Caption] = []
        for start in range(0, len(pairs), batch_size):
            made += self._batch(pairs[start : start + batch_size], beam, length_penalty, maps)
        return made

    def _batch(
        self, pairs: Sequence[Pair], beam: int | None, length_penalty: float | None, maps: bool
    ) -> list[Caption]:
        canvases = [  # one image at a time at its own size
            self._backbone.prepare(pixels_of(image, role, self._urls))
            for pair in pairs
            for image, role in zip(pair, ("before", "after"), strict=True)
        ]
        decoding, model = self._exported.decoding, self._exported.model
        with self._model_is_free:
            features = self._backbone.features_of_canvases(canvases).float().to(self._device)
            images = {"before": features[0::2], "after": features[1::2]}
            with bf16(model, self._device) if self._precision == "bf16" else nullcontext():
                made = generate(
                    model,
                    images,
                    decoding.beam if beam is None else beam,
                    decoding.length_penalty if length_penalty is None else length_penalty,
                )
            found = change_map(model, images, made.tokens, made.pair).cpu().numpy() if maps else None
            profiles = model.profile(images, made.pair)
        calibration, changed = self._exported.calibration, made.changed.cpu()
        far: list[float | None] = [None] * len(pairs)
        if calibration is not None:
            changed, far = calibration.probability(changed), calibration.unfamiliarity(profiles).tolist()
        results = []
        for number, scores in enumerate(made.alternative_log_probability.tolist()):
            sentences: dict[str, float] = {}
            for ids, log_probability in zip(made.alternatives[number].tolist(), scores, strict=True):
                if np.isfinite(log_probability):
                    sentences.setdefault(self._exported.tokenizer.decode(ids), log_probability)
            alternatives = tuple(Alternative(*one) for one in sentences.items())
            where = None if found is None else found[number] / (float(found[number].max()) or 1.0)
            if where is not None:
                where.flags.writeable = False
            results.append(Caption(alternatives[0].text, float(changed[number]), alternatives, where, far[number]))
        return results

    def strength(self, caption: Caption, side: int, height: int, width: int) -> np.ndarray:
        """float32 (height, width), 0 to 1: how much `caption` is about each place of an image; side 0 = before.

        The image may have any size of that shape. ValueError for a caption without maps.
        """
        if caption.where is None:
            raise ValueError("this caption has no map to draw: ask for it with maps=True")
        return self._canvas.on_image(caption.where[side], height, width)

    def heat_map(self, caption: Caption, before: ImageLike, after: ImageLike) -> Image.Image:
        """The two images of `caption` side by side, with the places that it is about lit up in red.

        ValueError for a caption without maps.
        """
        lit = []
        for number, (image, role) in enumerate(zip((before, after), ("before", "after"), strict=True)):
            pixels = pixels_of(image, role, self._urls)
            lit.append(light_up(pixels, self.strength(caption, number, *pixels.shape[:2])))
        both = Image.new("RGB", (lit[0].width + lit[1].width, max(image.height for image in lit)))
        both.paste(lit[0], (0, 0))
        both.paste(lit[1], (lit[0].width, 0))
        return both
