"""The model folder: everything that captions a pair of images, in files that any tool can read and none can run.

model.safetensors (weights), config.json (sizes, backbone, decoding, format version) and the tokenizer's file; of a
model that has been calibrated, calibration.json (`idc.captioning.calibration`); of a backbone that was trained
backbone.safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from idc.backbone.weights import save_weights
from idc.captioning import hub
from idc.captioning import tokenizer as tokenizers
from idc.captioning.calibration import Calibration
from idc.captioning.tokenizer import Tokenizer
from idc.model.build import build
from idc.model.config import ModelConfig
from idc.model.trunk import Trunk

# Of each architecture. Before: idc followed the camera in other ways (2), had no pooled cells nor novelties (3).
FORMATS = {"paper": 3, "idc": 4}
# Earlier ones that say the same here: what was given another number then was the other architecture.
EARLIER = {"paper": (1, 2), "idc": ()}
DROPPED = {"tie_word_head": False}  # options that are no more -> the value that is what all models are now
WEIGHTS, CONFIG, CALIBRATION = "model.safetensors", "config.json", "calibration.json"
BACKBONE_FILE = "backbone.safetensors"
FOLDER = "model"  # inside a run folder


class ExportError(ValueError):
    """A model folder that cannot be used; the message is one line with the file and the fix."""


@dataclass(frozen=True)
class Decoding:
    """How captions are made unless asked otherwise; see `idc.captioning.decoding`."""

    beam: int = 3
    length_penalty: float = 0.0


@dataclass(frozen=True)
class Exported:
    """A loaded model folder. `backbone` describes the features it was trained on (`Backbone.describe`)."""

    model: Trunk
    tokenizer: Tokenizer
    backbone: dict[str, Any]
    decoding: Decoding
    about: dict[str, Any]
    calibration: Calibration | None = None
    backbone_weights: str = ""  # the file of a backbone that was trained; empty: it has the weights of its name


def save(
    folder: str | Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: str | Path,
    backbone: Mapping[str, Any],
    decoding: Decoding | None = None,
    about: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    trained_backbone: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
) -> Path:
    """Writes a model folder, in place of one that is there; returns it.

    weights: the model's state_dict. tokenizer: its file, which is copied. backbone: as `Backbone.describe` gives it.
    about: anything worth keeping with the model, such as its scores; plain values. trained_backbone: the tensors and
    the conventions of a backbone that has other weights than those of its name (`idc.backbone.weights.save_weights`).
    """
    folder, tokenizer = Path(folder), Path(tokenizer)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Tied weights share memory, which the format has no way to say: each name gets a copy of its own.
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}, partial / WEIGHTS)
    if trained_backbone is not None:
        save_weights(partial / BACKBONE_FILE, *trained_backbone)
    name = "tokenizer" + tokenizer.suffix
    shutil.copyfile(tokenizer, partial / name)
    description = {
        "format": FORMATS[config.architecture],
        "model": config.to_dict(),
        "backbone": dict(backbone),
        "tokenizer": {"file": name, "sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest()},
        "decoding": dataclasses.asdict(decoding or Decoding()),
        "about": dict(about or {}),
    }
    (partial / CONFIG).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if calibration is not None:
        (partial / CALIBRATION).write_text(json.dumps(calibration.to_dict(), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


def find(path: str | Path) -> Path:
    """The model folder that a path means: itself, or the one inside a run folder; or the local copy of a model of the
    hub, OWNER/NAME or OWNER/NAME@REVISION. ExportError where there is none."""
    if hub.is_id(path):
        try:
            path = hub.fetch(str(path))
        except hub.HubError as error:
            raise ExportError(str(error)) from None
    path = Path(path)
    for folder in (path, path / FOLDER):
        if (folder / CONFIG).is_file():
            return folder
    if not path.is_dir():
        raise ExportError(f"{path}: no such folder; name a run folder (runs/NAME) or its model/")
    raise ExportError(f"{path} has no {FOLDER}/{CONFIG}: the run has exported no model yet; run its evaluate stage")


def load(path: str | Path, device: str | torch.device = "cpu") -> Exported:
    """Loads a model folder, that of a run folder, or a model of the hub, in evaluation mode. ExportError naming what is
    wrong with it."""
    folder = find(path)
    try:
        description = json.loads((folder / CONFIG).read_bytes())
        version = description["format"]
        values, backbone, entry = (description[name] for name in ("model", "backbone", "tokenizer"))
        decoding = Decoding(**description["decoding"])
        file, checksum = entry["file"], entry["sha256"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError(
            f"{folder / CONFIG} is not the description of a model ({type(error).__name__}); export it again"
        ) from None
    architecture = values.get("architecture") if isinstance(values, dict) else None
    wanted = FORMATS.get(str(architecture), max(FORMATS.values()))
    if version in EARLIER.get(str(architecture), ()):
        values = {name: value for name, value in values.items() if DROPPED.get(name, ...) != value}
        logging.getLogger(__name__).warning(
            "%s has format %s; read as %s, with the same captions", folder, version, wanted
        )
    elif version != wanted:
        raise ExportError(
            f"{folder / CONFIG} has format {version} and this version reads {wanted} of architecture {architecture!r}: "
            f"its weights would say other things here; use the version that made it, or train or import the model again"
        )
    try:
        config = ModelConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ExportError(f"{folder / CONFIG}: {error}") from None
    tokenizer = tokenizers.load(folder / Path(file).name)
    if hashlib.sha256(tokenizer.path.read_bytes()).hexdigest() != checksum:
        raise ExportError(f"{tokenizer.path} is not the tokenizer that the model was trained with; export it again")
    model = build(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{folder / WEIGHTS} cannot be read ({error}); export the model again") from None
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ExportError(f"{folder / WEIGHTS} does not fit {CONFIG} ({first})") from None
    model.to(device).eval().requires_grad_(False)
    about = description.get("about", {})
    of_backbone = folder / BACKBONE_FILE if "trained" in backbone else None
    if of_backbone is not None and not of_backbone.is_file():
        raise ExportError(f"{of_backbone} is missing, and the backbone was trained with the model; export it again")
    calibration = _calibration(folder / CALIBRATION)
    return Exported(model, tokenizer, dict(backbone), decoding, about, calibration, str(of_backbone or ""))


def _calibration(path: Path) -> Calibration | None:
    if not path.exists():
        return None
    try:
        return Calibration.from_dict(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError(
            f"{path} is not the calibration of a model ({type(error).__name__}); export the model again"
        ) from None
