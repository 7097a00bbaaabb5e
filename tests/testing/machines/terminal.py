"""A terminal, for what looks different on one."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Callable

import pytest


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> str:
    """What `work` writes on stderr while that is a terminal of 24 lines and 200 columns; lines end in \\n."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 200))
    with open(theirs, "w", buffering=1) as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        work()
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and all of it was read
        while some := os.read(ours, 2**16):
            shown += some
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")
