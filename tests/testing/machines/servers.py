"""Servers that tests start as processes of their own, ended."""

from __future__ import annotations

import os
import signal
import subprocess


def end(server: subprocess.Popen, limit_s: float = 10) -> None:
    """Asks a server that leads a process group to end, and kills the group where it does not in time."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
