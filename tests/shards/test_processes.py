"""Ctrl-C while processes are started."""

from __future__ import annotations

import signal
import threading
from multiprocessing.context import SpawnProcess

import pytest

from shards.processes import _Deaf


def test_ctrl_c_that_another_thread_takes_waits_until_a_process_has_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in between, it would find no work, and say so in a traceback."""
    starts, done = threading.Event(), []

    def take() -> None:
        starts.wait(10)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    other = threading.Thread(target=take)  # begun before, it keeps a mask of its own

    def start(self: SpawnProcess) -> None:
        starts.set()
        other.join(10)
        done.append(self)

    monkeypatch.setattr(SpawnProcess, "start", start)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        _Deaf().start()
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
