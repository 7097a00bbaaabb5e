"""Packing on a real Ray cluster: the same bytes, also when a worker or the packing itself is killed on the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from testing.killing import ROOT, kill, start_packing, wait_for
from testing.servers import end, wait_until_it_listens
from testing.tiny_source import TinySource

from shards.errors import DataError
from shards.pack import pack

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a Ray head with two CPUs, at work in another folder; all its processes end with the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parent  # workers import this file, and so what it imports
    path = os.pathsep.join(map(str, (ROOT, here, ROOT / "tests")))
    # Short: socket paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray = subprocess.Popen(
            [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", f"--temp-dir={folder}",
             "--object-store-memory=134217728", "--include-dashboard=false", "--disable-usage-stats",
             "--node-ip-address=127.0.0.1"],
            cwd=folder, env=os.environ | {"PYTHONPATH": path, "RAY_worker_niceness": "0"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until_it_listens(port, ray, lambda: "the Ray head does not start")
            yield f"127.0.0.1:{port}"
        finally:
            end(ray)


def packing_workers() -> list[psutil.Process]:
    """Ray's processes that pack at this moment."""
    named = [(process, process.info["cmdline"] or [""]) for process in psutil.process_iter(["cmdline"])]
    return [process for process, words in named if words[0].startswith("ray::_pack")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Deadly(TinySource):
    """Ends the process that asks for an image of the test split."""

    def image(self, image_id):
        if image_id.startswith("test"):
            os._exit(1)
        return super().image(image_id)


class Near(TinySource):
    """Has its images in a folder by a relative name, which another folder or machine does not have."""

    def image(self, image_id):
        try:
            return Path("images", image_id.replace("/", "-")).read_bytes()
        except FileNotFoundError:
            raise DataError("no such file") from None


def test_a_killed_packing_and_a_killed_worker_end_with_the_same_bytes(head, packed, tmp_path):
    out = tmp_path / "out"
    process = start_packing(tmp_path, out, seconds=0.1, address=head)
    try:
        wait_for(lambda: list(out.glob(".packing/pairs-*.tar.json")) and packing_workers(), process)
    finally:
        kill(process)
    assert not (out / "manifest.json").exists()
    process = start_packing(tmp_path, out, seconds=0.1, address=head)
    try:
        wait_for(packing_workers, process)
        packing_workers()[0].kill()
        assert process.wait(240) == 0
    finally:
        kill(process)
    assert "died, it is packed again" in (tmp_path / "run.log").read_text()
    assert contents(out) == contents(packed)


def test_a_unit_that_always_kills_its_worker_ends_in_one_line_and_the_rest_is_kept(head, packed, tmp_path):
    with pytest.raises(DataError, match="packed p[a-z]*-test-000000.tar died 3 times"):
        pack(Deadly(), tmp_path / "out", workers=None, address=head)
    assert len(list((tmp_path / "out" / ".packing").glob("*-train-*.tar.json"))) == 9
    pack(TinySource(), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(packed)


def test_a_root_that_the_nodes_do_not_see_is_refused_not_packed_without_images(head, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for record in TinySource().records(1):
        for image in record.images.values():
            (tmp_path / "images" / image.replace("/", "-")).write_bytes(TinySource().image(image))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="node .*: the image train-000/red is not .*--root must be the same folder"):
        pack(Near(), "out", workers=2, address=head)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert pack(Near(), "out")["dropped"] == {}
