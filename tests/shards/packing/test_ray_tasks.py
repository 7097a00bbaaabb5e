"""Packing on a real Ray cluster: the same bytes, also when a worker or the packing itself is killed on the way."""

from __future__ import annotations

import contextlib

import psutil
import pytest
from testing.killing import contents, kill, start_packing, wait_for
from testing.tiny_source import Deadly, Near, TinySource

from shards.errors import DataError
from shards.pack import pack

pytestmark = pytest.mark.ray


def packing_workers(leader: int) -> list[psutil.Process]:
    """The processes that pack at this moment, of the Ray that a process leads."""
    found = []
    for process in psutil.Process(leader).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::_pack"):
                found.append(process)
    return found


def test_a_killed_packing_and_a_killed_worker_end_with_the_same_bytes(head, ray_cluster, packed, tmp_path):
    _, leader = ray_cluster
    out = tmp_path / "out"
    process = start_packing(tmp_path, out, seconds=0.1, address=head)
    try:
        wait_for(lambda: list(out.glob(".packing/pairs-*.tar.json")) and packing_workers(leader), process)
    finally:
        kill(process)
    assert not (out / "manifest.json").exists()
    _, alive = psutil.wait_procs(packing_workers(leader), timeout=60)  # those of the packing that was killed
    assert not alive, alive
    process = start_packing(tmp_path, out, seconds=0.1, address=head)
    try:
        wait_for(lambda: packing_workers(leader), process)
        packing_workers(leader)[0].kill()
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
