"""Servers that tests start as processes of their own: waited for until they listen, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

START_LIMIT_S = 120


def wait_until_it_listens(port: int, server: subprocess.Popen, said: Callable[[], str]) -> None:
    """Returns once a local port answers; fails with what the server `said` where it ends or is not there in time."""
    until = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < until, said()
            time.sleep(0.05)


def end(server: subprocess.Popen, limit_s: float = 10) -> None:
    """Asks a server that leads a process group to end, and kills the group where it does not in time."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
