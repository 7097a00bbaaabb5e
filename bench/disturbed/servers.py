"""Servers started as processes of their own: waited for until they listen. Tests use them too."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import DataError

LIMIT_S = 120.0


@contextmanager
def moto(log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """moto's S3 server without a bucket, and its address; it keeps objects in memory and logs each request."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_until_it_listens(port, server, lambda: f"moto's server did not start: {log.read_text()[-300:]}")
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(LIMIT_S)


def wait_until_it_listens(port: int, server: subprocess.Popen, said: Callable[[], str]) -> None:
    """Returns once a local port answers; DataError with what the server `said` if it ends or is not there in time."""
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise DataError(said()) from None
            time.sleep(0.05)
