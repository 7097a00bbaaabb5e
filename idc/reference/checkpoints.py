"""Files of the reference implementation to a model folder and back: `python -m idc.reference --import`, `--export`.

Its programs save in two forms, both by torch.save:

- pretrained: {"global_step": int, "model_state_dict": weights, "task_batch_num": counts}, with the feature head, the
  classification heads where classes were learnt, and a head over three vectors that no loss uses;
- finetuned: the weights alone, without the feature head; with the changed head for CLEVR-Change, without it for birds.

Names may begin with "module.". The position table, which is computed, is among the weights. What is not: the heads, the
longest caption, the image backbone, and the vocabulary, a JSON object {word: id} in a file beside (dict.json).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from idc.backbone.backbone import Backbone
from idc.backbone.weights import BackboneError, read_weights
from idc.captioning import model_folder
from idc.captioning.tokenizer import SPECIAL
from idc.model.config import ModelConfig
from idc.model.layers import sinusoid
from idc.model.paper import PaperModel
from idc.reference.parity import ReferenceFileError, load_reference, reference_name, to_reference

Form = Literal["finetuned", "pretrained"]
POSITIONS = 200  # rows of the reference's position table
TABLE = "position_encoding.pe"
FEATURE_HEAD, CHANGED_HEAD, CLASS_HEADS = "feat_regress.", "pooler.", ("classifier.", "aligner.")
# Model fields that the reference has no choice of.
FIXED: dict[str, Any] = {
    "architecture": "paper", "caption_loss": "masked", "projection": "sigmoid", "layer_norm": "unbiased",
    "final_norm": False, "tie_feature_head": True,
}  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """What a checkpoint does not say. Defaults: the reference's CLEVR-Change model on ResNet-101's last 7x7 grid."""

    heads: int = 8
    max_length: int = 40  # 80 for birds
    backbone: str = "resnet101.tv_in1k"  # timm model
    backbone_weights: str = ""  # local file; empty: a pip package's or the hub's
    size: tuple[int, int] = (224, 224)  # height and width that images are fitted into, pixels
    strides: tuple[int, ...] = (32,)  # levels of the backbone


def import_checkpoint(path: Path, vocabulary: Path, out: Path, beside: Beside) -> Path:
    """Writes the model folder `out` of a checkpoint of the reference; returns it. It captions greedily.

    The head that a form does not have stays untrained: the feature head at random, the changed head at even odds.
    Raises ReferenceFileError, one line, for whatever cannot be used; then nothing is written.
    """
    _require_new(out, "--out")
    weights = _read(path)
    words = read_vocabulary(vocabulary)
    config = _config(path, weights, beside)
    if config.vocab_size != len(words):
        raise ReferenceFileError(
            f"{vocabulary} has {len(words)} words and {path} {config.vocab_size}: it is the vocabulary of another model"
        )
    try:
        backbone = Backbone(beside.backbone, beside.backbone_weights, beside.size, beside.strides)
    except BackboneError as error:
        raise ReferenceFileError(f"--backbone: {error}") from None
    if backbone.dim != config.feature_dim:
        raise ReferenceFileError(
            f"{path} was trained on features of {config.feature_dim} channels and the backbone {backbone.name} at "
            f"strides {backbone.strides} gives {backbone.dim}: name its own with --backbone and --strides"
        )
    config = ModelConfig.from_dict(config.to_dict() | {"grid": backbone.grid})
    model, lacking = _load(path, config, weights)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        content = {"kind": "words", "words": [*SPECIAL, *words[len(SPECIAL) :]]}
        tokenizer.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        about = {"imported": path.name, "untrained": lacking}
        decoding = model_folder.Decoding(beam=1)
        try:
            return model_folder.save(out, config, model.state_dict(), tokenizer, backbone.describe(), decoding, about)
        except OSError as error:
            raise ReferenceFileError(f"--out {out} cannot be written ({error.strerror})") from None


def export_checkpoint(folder: Path, out: Path, vocabulary: Path, form: Form) -> None:
    """Writes a model folder as a checkpoint of the reference and its vocabulary, in the form that its programs load.

    finetuned: exactly what its fine-tuning model for CLEVR-Change has. pretrained: what its fine-tuning begins from.
    Raises ReferenceFileError for a model that the reference has no place for.
    """
    _require_new(out, "--out")
    _require_new(vocabulary, "--vocabulary")
    try:
        exported = model_folder.load(folder)
    except ValueError as error:
        raise ReferenceFileError(str(error)) from None
    config = exported.model.config
    for field, value in FIXED.items():
        if getattr(config, field) != value:
            raise ReferenceFileError(
                f"{folder}: its {field} is {getattr(config, field)!r} and the reference knows {value!r} alone"
            )
    if exported.tokenizer.path.suffix != ".json":
        raise ReferenceFileError(
            f"{folder}: its tokenizer is sentencepiece and the reference knows whole words alone: train on shards that "
            f"were packed with --tokenizer words"
        )
    words = json.loads(exported.tokenizer.path.read_bytes())["words"]
    assert isinstance(exported.model, PaperModel)
    weights = to_reference(exported.model) | {TABLE: sinusoid(POSITIONS, config.d_model)[None]}
    left_out = (FEATURE_HEAD, *CLASS_HEADS) if form == "finetuned" else (CHANGED_HEAD,)
    weights = {name: weight.clone() for name, weight in weights.items() if not name.startswith(left_out)}
    content = weights if form == "finetuned" else {
        "global_step": 0, "model_state_dict": weights, "task_batch_num": {},
    }  # fmt: skip
    ids = {word.upper() if word in SPECIAL else word: token for token, word in enumerate(words)}
    try:
        _write(vocabulary, lambda partial: partial.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8"))
        _write(out, lambda partial: torch.save(content, partial))
    except (OSError, RuntimeError) as error:
        vocabulary.unlink(missing_ok=True)  # one without the other is of no use
        raise ReferenceFileError(f"{out} and {vocabulary}: {' '.join(str(error).split())}") from None


def read_vocabulary(path: Path) -> list[str]:
    """The words of the reference's {word: id}, by id. ReferenceFileError where it is not one."""
    try:
        ids = json.loads(path.read_bytes())
    except OSError as error:
        raise ReferenceFileError(f"--vocabulary {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, dict) or sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))):
        raise ReferenceFileError(
            f"--vocabulary {path} is not a JSON object of words and their ids 0, 1, ...: it is the dict.json beside "
            f"the reference's data"
        )
    words = sorted(ids, key=lambda word: int(ids[word]))
    if [word.lower() for word in words[: len(SPECIAL)]] != list(SPECIAL):
        found = " ".join(words[: len(SPECIAL)])
        raise ReferenceFileError(f"--vocabulary {path}: ids 0 to 5 must be {' '.join(SPECIAL).upper()}, not {found}")
    return words


def _counts(*factory: object) -> dict:
    """Stands in for collections.defaultdict, which the weights-only reader does not fill."""
    return {}


def _read(path: Path) -> dict[str, Tensor]:
    # The counts of pre-training files are a defaultdict(int); with a plain dict in its place nothing else is let in.
    with torch.serialization.safe_globals([(_counts, "collections.defaultdict"), int]):
        try:
            return read_weights(path)
        except BackboneError as error:
            raise ReferenceFileError(str(error)) from None


def _config(path: Path, weights: Mapping[str, Tensor], beside: Beside) -> ModelConfig:
    """The sizes that the weights show."""

    def shape(name: str) -> torch.Size:
        if name not in weights:
            raise ReferenceFileError(f"{path} has no weight {name}: it is no checkpoint of the reference")
        if weights[name].dim() != 2:
            raise ReferenceFileError(
                f"{path}: the weight {name} has shape {tuple(weights[name].shape)}, not (rows, columns)"
            )
        return weights[name].shape

    words, size = shape("word_embedding.weight")
    blocks = {name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}
    try:
        return ModelConfig(
            **FIXED, vocab_size=words, d_model=size, feature_dim=shape("img_project.0.weight")[1],
            d_ff=shape("encoder.layers.0.feed_forward.w_1.weight")[0], cross_modal_blocks=len(blocks),
            heads=beside.heads, max_length=beside.max_length, mask_padding=False,
            classes=shape("classifier.0.weight")[0] if "classifier.0.weight" in weights else 0,
        )  # fmt: skip
    except ValueError as error:
        raise ReferenceFileError(f"{path}: {error}") from None


def _load(path: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[PaperModel, list[str]]:
    """(the model, what stays untrained: "feature head", "changed head")."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PaperModel(config)
    for weight in model.changed_head.parameters():
        torch.nn.init.zeros_(weight)
    try:
        missing = load_reference(model, {name: weight.float() for name, weight in weights.items()})
    except ValueError as error:
        raise ReferenceFileError(f"{path}: {error}") from None
    lacking = []
    for prefix, head in (("regression.", "feature head"), ("changed_head.", "changed head")):
        parts = {name for name in model.state_dict() if name.startswith(prefix)}
        if parts <= set(missing):
            lacking.append(head)
            missing = [name for name in missing if name not in parts]
    if missing:
        raise ReferenceFileError(f"{path} has no weight {reference_name(missing[0])}")
    return model, lacking


def _require_new(path: Path, option: str) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ReferenceFileError(f"{option} {path} is there already: name a new one")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run(given: argparse.Namespace) -> int:
    """Does what --import or --export asks for; returns the exit code."""
    try:
        _run(given)
    except ReferenceFileError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.out} is written")
    return 0


def _run(given: argparse.Namespace) -> None:
    option, other = ("--import", "--export") if given.imported else ("--export", "--import")
    if given.file is not None or (given.imported and given.exported):
        raise ReferenceFileError("one thing at a time: a .npz file, --import or --export")
    beside = {name: getattr(given, name) for name in (field.name for field in dataclasses.fields(Beside))}
    beside = {name: tuple(v) if isinstance(v, list) else v for name, v in beside.items() if v is not None}
    for name in ("form",) if given.imported else beside:
        if getattr(given, name) is not None:
            raise ReferenceFileError(f"--{name.replace('_', '-')} is for {other}, not {option}")
    for name in ("out", "vocabulary"):
        if getattr(given, name) is None:
            raise ReferenceFileError(f"{option} needs --{name} too")
    if given.imported:
        import_checkpoint(given.imported, given.vocabulary, given.out, Beside(**beside))
    else:
        export_checkpoint(given.exported, given.out, given.vocabulary, given.form or "finetuned")
