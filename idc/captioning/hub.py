"""Model folders on the Hugging Face hub: fetched by their id, and sent there. `HF_ENDPOINT` names another hub."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

FILES = ("config.json", "model.safetensors", "backbone.safetensors", "calibration.json", "tokenizer.*")
TIMEOUT_S = 5.0  # for the first connection; the hub's own client tries again for most of a minute
_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class HubError(ValueError):
    """A model that cannot be fetched or sent; the message is one line with the fix."""


def is_id(path: str | Path) -> bool:
    """Whether this is OWNER/NAME or OWNER/NAME@REVISION, and nothing that lies here: no folder has the owner's name."""
    text = str(path)
    return bool(_ID.fullmatch(text)) and not Path(text).exists() and not Path(text.split("/")[0]).exists()


def fetch(name: str) -> Path:
    """The local copy of a model, OWNER/NAME or OWNER/NAME@REVISION; what lies in the cache already is not sent again.

    If the hub cannot be reached, the copy of an earlier call serves. HubError if there is none, or no such model.
    """
    hub, found = _client("fetches it"), _ID.fullmatch(name)
    assert found, name
    why = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else _unreachable()
    try:
        folder = hub.snapshot_download(
            found["name"], revision=found["revision"], allow_patterns=list(FILES), endpoint=_endpoint(),
            local_files_only=bool(why),
        )  # fmt: skip
    except (OSError, hub.errors.HTTPError, hub.errors.HFValidationError) as error:
        if why:
            raise HubError(f"{name}: no such folder here, and no copy of such a model, and {why}") from None
        raise HubError(f"{name}: no such folder here, and the hub says: {_said(error)}") from None
    return Path(folder)


def check_push(name: str) -> None:
    """HubError if a folder could not be sent as OWNER/NAME: a wrong name, no client, no hub, nobody logged in."""
    found = _ID.fullmatch(name)
    if not found or found["revision"]:
        raise HubError(f"--push {name}: name a model of the hub, OWNER/NAME")
    hub = _client("sends it")
    if why := "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else _unreachable():
        raise HubError(f"--push {name}: {why}")
    if hub.get_token() is None:
        raise HubError(f"--push {name}: nobody is logged in; give hf auth login, or set HF_TOKEN")


def push(folder: Path, name: str) -> str:
    """Sends a folder as the model OWNER/NAME, in one commit; a new model is private. Returns its address."""
    hub = _client("sends it")
    interface = hub.HfApi(endpoint=_endpoint())
    try:
        address = interface.create_repo(name, private=True, exist_ok=True)
        interface.upload_folder(repo_id=name, folder_path=folder, commit_message="A model of captions of changes")
    except (OSError, hub.errors.HTTPError, hub.errors.HFValidationError) as error:
        raise HubError(f"{folder} is made, but the hub did not take it as {name}: {_said(error)}") from None
    return str(address)


def _client(does: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError:
        raise HubError(f"huggingface_hub, which {does}, is not installed: pip install huggingface_hub") from None
    return huggingface_hub


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _unreachable() -> str:
    """Why the hub cannot be reached; empty: it can."""
    address = urlsplit(_endpoint())
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=TIMEOUT_S).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached ({error.strerror or type(error).__name__})"
    return ""


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
