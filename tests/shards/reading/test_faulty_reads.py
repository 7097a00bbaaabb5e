"""Disks and stores that fail for a while: reading waits and goes on; what stays is named, and no sample is given up."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from shards.errors import Unreachable
from shards.format import retries
from shards.reading import object_store
from shards.reading.object_store import Bucket
from shards.reading.reader import Folder, Prefetcher


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], int]], None]:
    """Makes positioned reads fail with the error that fails(descriptor) names, 0: none."""

    def start(fails: Callable[[int], int]) -> None:
        real = os.pread

        def pread(descriptor: int, *arguments: int) -> bytes:
            if number := fails(descriptor):
                raise OSError(number, os.strerror(number))
            return real(descriptor, *arguments)

        monkeypatch.setattr(os, "pread", pread)

    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))
    return start


def test_a_read_that_fails_now_and_then_gives_the_same_bytes(packed: Any, failing: Any) -> None:
    stream, reads = Folder.open(packed).stream("pair", "train"), iter(range(10**6))
    expected = [stream.read(i) for i in range(len(stream))]
    failing(lambda _: errno.EIO * (next(reads) % 3 == 2))
    assert [stream.read(i) for i in range(len(stream))] == expected


def test_a_stale_handle_is_opened_anew(packed: Any, failing: Any) -> None:
    stream = Folder.open(packed).stream("pair", "train")
    expected = stream.read(0)
    (stale,) = stream.folder._files._open.values()  # held, so that no other file gets its number
    failing(lambda descriptor: errno.ESTALE * (descriptor == stale.descriptor))
    assert stream.read(0) == expected


def test_a_read_that_keeps_failing_names_the_tar_and_says_nothing_of_the_sample(packed: Any, failing: Any) -> None:
    stream = Folder.open(packed).stream("pair", "train")
    failing(lambda _: errno.EIO)
    with pytest.raises(Unreachable, match=r"pairs-train-000000.tar cannot be read \(Input/output error\), 3 times"):
        stream.read(0)


@pytest.mark.slow
def test_a_store_that_is_silent_for_a_while_is_waited_for(
    packed: Any, s3_url: str, s3_server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a training reads: samples ahead, by threads. The server is stopped after the first and goes on later."""
    bucket = Bucket(s3_url)
    for path in packed.iterdir():
        bucket.upload(path, path.name)
    monkeypatch.setattr(object_store, "REQUEST_LIMIT", 0.4)
    stream, local = Folder.open(s3_url).stream("pair", "train"), Folder.open(packed).stream("pair", "train")
    with caplog.at_level(logging.WARNING), Prefetcher(stream.read, range(len(stream)), depth=1) as samples:
        read = [next(samples)]
        os.kill(s3_server.pid, signal.SIGSTOP)
        threading.Timer(2.0, os.kill, (s3_server.pid, signal.SIGCONT)).start()
        started = time.monotonic()
        read += samples
        waited = time.monotonic() - started
    assert read == [local.read(i) for i in range(len(local))] and waited > 1.5
    (said,) = {record.getMessage() for record in caplog.records if record.name == object_store.__name__}
    assert said.startswith(f"{s3_url}/pairs-train-") and "it is asked again for 150 s" in said
    monkeypatch.setattr(object_store, "PATIENCE", 1.0)
    os.kill(s3_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match=rf"{s3_url}/manifest.json: no answer .* \(asked again for \d+ s\)"):
            bucket.read("manifest.json")
    finally:
        os.kill(s3_server.pid, signal.SIGCONT)
    assert bucket.read("manifest.json") == (packed / "manifest.json").read_bytes()
