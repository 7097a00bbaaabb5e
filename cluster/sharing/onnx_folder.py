"""The ONNX graphs of a model folder, written and held against PyTorch on pairs of its test split."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from cluster.errors import ConfigError
from idc.backbone.backbone import Backbone
from idc.captioner import Captioner
from idc.captioning import model_folder
from shards.progress import Progress, busy
from shards.reading.reader import Folder

FOLDER = "onnx"
NEEDED = ("onnx", "onnxruntime", "onnxscript")
PAIRS, BATCH = 200, 20  # compared at most; captioned at once by PyTorch


@dataclass(frozen=True)
class Agreement:
    """Of how many pairs onnxruntime and PyTorch say the same words; the largest differences of what they compute."""

    pairs: int
    same: int
    log_probability: float  # of the sentence, over pairs with the same words
    changed: float  # of the probability that the images differ

    def __str__(self) -> str:
        return (
            f"onnxruntime says the words of PyTorch on {self.same} of {self.pairs} pairs; log-probabilities differ by "
            f"{self.log_probability:.1e} at most, probabilities of a change by {self.changed:.1e}"
        )


def require_onnx() -> None:
    """ConfigError, one line with the command, if a package is not installed that writing and checking graphs needs."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(
            f"--onnx needs {lacking[0]}, which is not installed: pip install 'image-difference-captioning[onnx]'"
        )


def write(folder: Path, weights: str, shards: Folder, split: str) -> Agreement:
    """Writes onnx/ into a model folder and compares it on the first pairs of a split.

    weights: a file of the weights of a frozen backbone, "" = those of its name. Raises ValueError as loading does.
    """
    import idc.onnx.caption as program
    from idc.onnx import graphs

    exported = model_folder.load(folder)
    backbone = Backbone.from_description(
        exported.backbone | {"precision": "fp32"}, exported.backbone_weights or weights
    )
    into = folder / FOLDER
    into.mkdir()
    with busy("writing the ONNX graphs"):
        graphs.export(exported.model, backbone, into)
    shutil.copyfile(program.__file__, into / "caption.py")
    return compare(Captioner(exported, backbone), program.OnnxCaptioner(folder), shards, split)


def compare(captioner: Captioner, runtime, shards: Folder, split: str) -> Agreement:
    """Both caption the first pairs of a split from the bytes of their images."""
    stream = shards.stream("pair", split)
    same, total, apart, changed = 0, min(len(stream), PAIRS), 0.0, 0.0
    with Progress("held against PyTorch", 0, total, "pair") as progress:
        for start in range(0, total, BATCH):
            members = [stream.read(i) for i in range(start, min(start + BATCH, total))]
            pairs = [(_image(each, "before"), _image(each, "after")) for each in members]
            expected = captioner.captions([(Image.open(a), Image.open(b)) for a, b in pairs], maps=False)
            for (before, after), wanted in zip(pairs, expected, strict=True):
                text, log_probability, probability = runtime.caption(before, after)
                changed = max(changed, abs(probability - wanted.changed_probability))
                if text == wanted.text:
                    same += 1
                    apart = max(apart, abs(log_probability - wanted.alternatives[0][1]))
            progress.update(len(pairs))
    return Agreement(total, same, apart, changed)


def _image(members: dict[str, bytes], side: str) -> io.BytesIO:
    return io.BytesIO(next(data for name, data in members.items() if name.startswith(f"{side}.")))
