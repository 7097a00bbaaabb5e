"""Processes that decode images: what comes back, and what becomes of them when they, or who asks, are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from testing.picture_source import encoded, picture

from cluster.batches.samples import Samples
from cluster.images.loaders import Loaders
from cluster.images.look import Look
from idc.backbone.canvas import Canvas
from shards.errors import DataError
from shards.images.decode import decode_image

CANVAS = Canvas((48, 64), (48, 64))


@pytest.fixture(scope="module")
def loaders() -> Iterator[Loaders]:
    with Loaders(CANVAS, "bicubic", 2, limit_s=20) as opened:
        yield opened


def test_pixels_are_those_of_the_canvas(loaders: Loaders) -> None:
    images = [encoded(picture(seed, 90, 50 + seed), kind) for seed in range(8) for kind in ("JPEG", "PNG")]
    for data, pixels in zip(images, loaders.map(loaders.pixels, images), strict=True):
        assert (pixels == CANVAS.fit(decode_image(data), Image.Resampling.BICUBIC)).all()
        assert not (pixels == loaders.pixels(data, Look(left=0.2, brightness=0.8))).all()
    one = loaders.pixels(images[0])
    assert (loaders.pixels(images[0], Look(mirrored=True)) == one[:, ::-1]).all()


def test_bytes_that_are_no_image_are_told_with_the_sample(loaders: Loaders, tiny: Any) -> None:
    with pytest.raises(DataError, match="neither a JPEG nor a PNG"):
        loaders.pixels(b"nothing")
    assert loaders.pixels(encoded(picture(0))).shape == (48, 64, 3), "the process serves on"
    samples = Samples(tiny.shards, None, "pair", "test", loaders=loaders)
    assert samples.arrays([0, 3])["after"].shape == (2, 48, 64, 3)
    with (
        Loaders(CANVAS, "no such resampling", 1) as dying,
        pytest.raises(DataError, match=r"test-000000.tar: sample .*jpg: the process .* died \(exit code 1\), 2"),
    ):
        Samples(tiny.shards, None, "pair", "test", loaders=dying).arrays([0])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_started_again(sent: signal.Signals) -> None:
    data = encoded(picture(1))
    with Loaders(CANVAS, "bicubic", 1, limit_s=1.5) as opened:
        expected = opened.pixels(data)
        first = opened._all[0]._process
        os.kill(first.pid, sent)
        assert (opened.pixels(data) == expected).all()
        assert opened._all[0]._process.pid != first.pid and first.returncode == -signal.SIGKILL


HELD = """
import sys, time
from cluster.images.loaders import Loaders
from idc.backbone.canvas import Canvas
opened = Loaders(Canvas((48, 64), (48, 64)), "bicubic", 2)
assert "torch" not in sys.modules
print(*(one._process.pid for one in opened._all), flush=True)
time.sleep(60)
"""


def test_none_is_left_when_who_asks_is_killed() -> None:
    root = Path(__file__).resolve().parents[3]
    asks = subprocess.Popen([sys.executable, "-c", HELD], cwd=root, stdout=subprocess.PIPE, text=True)
    assert asks.stdout is not None
    pids = [int(word) for word in asks.stdout.readline().split()]
    assert len(pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pids)
    asks.kill()
    asks.wait()
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "they outlive it"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_closing_ends_them() -> None:
    opened = Loaders(CANVAS, "bicubic", 2)
    processes = [one._process for one in opened._all]
    assert np.asarray(opened.pixels(encoded(picture(2)))).any()
    opened.close()
    assert all(process.returncode is not None for process in processes)
