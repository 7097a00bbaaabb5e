"""Secrets on their way to workers: in a file that its owner alone can read.

What is in Ray's runtime_env is shown to everybody who can reach the cluster's dashboard or its state API.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import ConfigError

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY")
FILE = ".credentials.json"


@contextmanager
def handed_over(folder: Path | None) -> Iterator[Path | None]:
    """The file of this process's secrets in a folder that workers see, removed at the end.

    None where there are no secrets, or no folder: workers of a Ray of our own have our environment.
    """
    found = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
    if folder is None or not found:
        yield None
        return
    path = folder / FILE
    path.unlink(missing_ok=True)  # of a driver that was killed
    # Refuses a file or a link that another has put there in the meantime.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:
            json.dump(found, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


def read(path: Path | None) -> dict[str, str]:
    """The secrets in a file that was handed over. ConfigError where this process may not read it."""
    if path is None:
        return {}
    try:
        return json.loads(path.read_bytes())
    except PermissionError:
        raise ConfigError(
            f"{path} is its owner's alone and a worker runs as another user: start Ray as the user of the run"
        ) from None
    except FileNotFoundError:
        raise ConfigError(
            f"{path.parent} is not the same folder on all nodes: name one that all share by --root"
        ) from None
