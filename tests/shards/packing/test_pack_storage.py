"""Packing into an object store: what holds for a folder holds for a bucket, and only one packing at a time wins."""

from __future__ import annotations

import time

import pytest
from testing.killing import contents, kill_often
from testing.tiny_source import TinySource

from shards.errors import DataError
from shards.pack import pack
from shards.reading.object_store import Bucket


def objects(url: str) -> dict[str, bytes]:
    bucket = Bucket(url)
    return {name: bucket.read(name) for name in sorted(bucket.names())}


@pytest.mark.slow
def test_packing_to_s3_killed_at_random_ends_with_the_same_bytes(s3_url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = TinySource(scenes=2, broken=("train-001/blue",))
    pack(source, tmp_path / "local")
    start = time.monotonic()
    pack(source, s3_url)
    seconds = time.monotonic() - start
    places = (f"{s3_url}-{number}" for number in range(20))
    other = kill_often(lambda place: pack(source, place), places, seconds, times=3, seed=0)
    pack(source, other)
    assert objects(s3_url) == objects(other) == contents(tmp_path / "local")
    assert not Bucket(f"{other}/.packing").names() and [path.name for path in tmp_path.iterdir()] == ["local"]


@pytest.mark.slow
def test_packing_to_s3_by_two_workers_mends_and_refuses_like_a_folder(s3_url, tmp_path, capfd):
    pack(TinySource(2), tmp_path / "local")
    pack(TinySource(2), s3_url, workers=2)
    assert objects(s3_url) == contents(tmp_path / "local")
    bucket = Bucket(s3_url)
    bucket.delete("pairs-val-000000.tar")
    bucket.write("tokenizer.model", b"damaged")
    assert pack(TinySource(2), s3_url)["source"] == "tiny"
    assert objects(s3_url) == contents(tmp_path / "local")
    pack(TinySource(2), s3_url)
    assert f"{s3_url} is packed already" in capfd.readouterr().err
    with pytest.raises(DataError, match="scenes = 2, now asked for with 3"):
        pack(TinySource(3), s3_url)
    Bucket(s3_url + "/thesis").write("thesis.tex", b"mine")
    with pytest.raises(DataError, match="other files"):
        pack(TinySource(2), s3_url + "/thesis")


def test_of_two_packings_into_a_bucket_the_first_gives_way(s3_url):
    class Meanwhile(TinySource):
        def records(self, workers):
            pack(TinySource(1), s3_url)
            return super().records(workers)

    with pytest.raises(DataError, match="taken over|no such object"):
        pack(Meanwhile(1), s3_url)
    assert Bucket(s3_url).size("manifest.json") and not Bucket(f"{s3_url}/.packing").names()


def test_storage_that_workers_do_not_share_is_noticed():
    with pytest.raises(DataError, match="memory"):
        pack(TinySource(), "memory://tiny", workers=2)
