"""Processes that decode the images of one worker ahead of its training.

Each is a fresh Python that has imported what decodes and nothing else: it is no fork of a process with threads, GPUs or
a Ray in it (ray#52598), and it does not import the program that it works for. It is given the bytes of an image and
gives back pixels; samples are read here, where bad ones are replaced. A process that dies is started again.
"""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from cluster import with_code
from cluster.images.decoder import FAILED, HEADER, PIXELS, REPLY
from cluster.images.look import Look
from idc.backbone.canvas import Canvas
from shards.errors import DataError

A = TypeVar("A")
B = TypeVar("B")
LIMIT_S = 120.0  # for one image; one of 64 megapixels takes a second
TRIES = 2  # of an image at which a process dies: something else may have ended it


class Loaders:
    """As many processes as are asked for, and threads that wait for them. A context manager."""

    def __init__(self, canvas: Canvas, resampling: str, processes: int, limit_s: float = LIMIT_S) -> None:
        """resampling: as Pillow names it. limit_s: longest wait for an image, seconds."""
        self._canvas, self._limit_s = canvas, limit_s
        self._settings = json.dumps({"inner": canvas.inner, "outer": canvas.outer, "resampling": resampling})
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._all = [_Decoder(self._settings, limit_s) for _ in range(processes)]
        for decoder in self._all:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(processes, "loader")

    def __enter__(self) -> Loaders:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """function(item) of each, in order; as many at once as there are processes. Not to be called inside of one."""
        return self._threads.map(function, items)

    def pixels(self, data: bytes, look: Look | None = None) -> np.ndarray:
        """Bytes of JPEG or PNG -> uint8 of the canvas' size. DataError where they cannot be decoded.

        RuntimeError where no process is free for TRIES times the limit.
        """
        try:
            decoder = self._idle.get(timeout=TRIES * self._limit_s)
        except queue.Empty:
            raise RuntimeError(f"no loader process was free for {TRIES * self._limit_s:g} s") from None
        try:
            for _ in range(TRIES):
                try:
                    return decoder.pixels(data, look or Look(), self._canvas.outer)
                except (OSError, EOFError) as error:
                    why = decoder.start_again(error)
            raise DataError(f"the process that decoded it {why}, {TRIES} times")
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._all:
            decoder.end()
        self._threads.shutdown(wait=True)


class _Decoder:
    """One process, and our end of its socket."""

    def __init__(self, settings: str, limit_s: float) -> None:
        self._settings, self._limit_s, self._ended = settings, limit_s, False
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(self._limit_s)
        with theirs:
            self._process = subprocess.Popen(
                # -P: a module of the working folder that is called cluster is not run in this one's place.
                [sys.executable, "-P", "-m", "cluster.images.decoder", self._settings],
                env=with_code(),
                stdin=theirs.fileno(),
                start_new_session=True,  # Ctrl-C is for the one who asks
            )
        self._socket = ours

    def pixels(self, data: bytes, look: Look, size: tuple[int, int]) -> np.ndarray:
        """OSError or EOFError where the process does not answer; DataError where it refuses the bytes."""
        self._socket.sendall(HEADER.pack(len(data), *look))
        self._socket.sendall(data)
        kind, length = REPLY.unpack(self._received(bytearray(REPLY.size)))
        if kind == PIXELS:
            found = np.empty((*size, 3), np.uint8)
            assert length == found.nbytes, "it has the same canvas"
            self._received(found.data.cast("B"))
            return found
        said = bytes(self._received(bytearray(length))).decode()
        if kind == FAILED:
            raise RuntimeError(f"a loader process failed:\n{said}")
        raise DataError(said)

    def _received(self, room: bytearray | memoryview) -> bytearray | memoryview:
        view, done = memoryview(room), 0
        while done < len(view):
            got = self._socket.recv_into(view[done:])
            if not got:
                raise EOFError
            done += got
        return room

    def start_again(self, error: Exception) -> str:
        """Ends what is left of the process and starts another; says what became of it."""
        hangs = isinstance(error, TimeoutError)
        if self._ended:
            raise RuntimeError("the loader processes have been ended") from error
        self._kill()
        self._start()
        return f"did not answer within {self._limit_s:g} s" if hangs else f"died (exit code {self._code})"

    def end(self) -> None:
        """Ends the process for good."""
        self._ended = True
        self._kill()

    def _kill(self) -> None:
        self._socket.close()
        try:
            self._code = self._process.wait(0.5)  # it ends by itself when the socket has no other end
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._code = self._process.wait()
