"""Captions a pair of images with onnxruntime, Pillow and the tokenizer alone: no torch, nothing else of this project.

python onnx/caption.py BEFORE AFTER, in the folder of an exported model; onnxruntime, numpy, pillow and, if the model
has a tokenizer.model, sentencepiece have to be installed.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class OnnxCaptioner:
    """The model of a folder: config.json, the tokenizer, and onnx/ with the two graphs."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_bytes())
        tokenizer = folder / self.config["tokenizer"]["file"]
        if tokenizer.suffix == ".model":
            from sentencepiece import SentencePieceProcessor

            self.text: Callable[[list[int]], str] = SentencePieceProcessor(model_file=str(tokenizer)).decode
        else:
            words = json.loads(tokenizer.read_bytes())["words"]
            self.text = lambda ids: " ".join(words[token] for token in ids)
        calibrated = folder / "calibration.json"
        known = json.loads(calibrated.read_bytes())["temperature"] if calibrated.is_file() else None
        self.temperature = known or 1.0
        self.encoder, self.step = (
            onnxruntime.InferenceSession(folder / "onnx" / name, providers=["CPUExecutionProvider"])
            for name in ("encoder.onnx", "step.onnx")
        )

    def pixels(self, path) -> np.ndarray:
        """(1, H, W, 3) uint8: the image fitted into the backbone's canvas, its edges repeated."""
        about = self.config["backbone"]
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        rows, columns = (side * about["strides"][-1] for side in about["grid"])
        scale = min(about["size"][0] / image.height, about["size"][1] / image.width)
        height, width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        how = Image.Resampling[about["resize"].removeprefix("fit, ").upper()]
        image = image if image.size == (width, height) else image.resize((width, height), how)
        top, left = (rows - height) // 2, (columns - width) // 2
        edges = ((top, rows - height - top), (left, columns - width - left), (0, 0))
        return np.pad(np.asarray(image), edges, mode="edge")[None]

    def caption(self, before, after) -> tuple[str, float, float]:
        """The best sentence, its log-probability, and the probability that the images differ; a beam search."""
        model, beam = self.config["model"], self.config["decoding"]["beam"]
        names = [output.name for output in self.encoder.get_outputs()]
        found = self.encoder.run(None, {"before": self.pixels(before), "after": self.pixels(after)})
        state = {name: np.repeat(value, beam, axis=0) for name, value in zip(names, found, strict=True)}
        raw = float(np.clip(state.pop("changed_probability")[0], 1e-7, 1 - 1e-7))
        changed = 1 / (1 + ((1 - raw) / raw) ** (1 / self.temperature))
        tokens = np.full((beam, 1), model["bos"])
        score = np.where(np.arange(beam) == 0, 0, -np.inf).astype(np.float32)  # all begin equal: one may branch
        length, ended = np.zeros(beam, int), np.zeros(beam, bool)
        while tokens.shape[1] < model["max_length"] and not np.all(ended | np.isneginf(score)):
            said, keys, values = self.step.run(None, {"words": tokens[:, -1], **state})
            said[ended] = np.where(np.arange(said.shape[1]) == model["pad"], 0, -np.inf)  # the end goes on as padding
            total = (score[:, None] + said).ravel()
            best = np.argsort(-total, kind="stable")[:beam]
            origin, word = best // said.shape[1], best % said.shape[1]
            state = {name: value[origin] for name, value in (state | {"keys": keys, "values": values}).items()}
            tokens, score = np.concatenate([tokens[origin], word[:, None]], axis=1), total[best]
            length, ended = length[origin] + ~ended[origin], ended[origin] | (word == model["eos"])
        first = int(np.argmax(score / np.maximum(length, 1) ** self.config["decoding"]["length_penalty"]))
        parts: list[list[int]] = [[]]
        for token in tokens[first].tolist():
            if token == model["unk"]:
                parts.append([])
            elif token > model["mask"]:
                parts[-1].append(token)
        return " ".join(" <unk> ".join(map(self.text, parts)).split()), float(score[first]), changed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give two image files: python caption.py BEFORE AFTER")
    print(OnnxCaptioner(Path(__file__).resolve().parents[1]).caption(*sys.argv[1:])[0])
