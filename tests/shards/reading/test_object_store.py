"""Objects by URL against a real S3 server of this machine, and each failure in one line."""

from __future__ import annotations

import pickle
import socket

import pytest
from s3fs import S3FileSystem

from shards.errors import DataError
from shards.reading import object_store
from shards.reading.object_store import Bucket, is_url


def test_objects_come_back_as_they_were_written(s3_url, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "CHUNK", 1000)
    bucket = Bucket(s3_url + "/")
    assert bucket.names() == set()
    data = bytes(range(256)) * 13
    (tmp_path / "local").write_bytes(data)
    bucket.write("empty", b"")
    bucket.write("a.json", b"{}")
    bucket.write("a.json", data)
    bucket.upload(tmp_path / "local", "b.tar")
    Bucket(f"{s3_url}/below").write("c", b"not a child")
    assert bucket.names() == {"empty", "a.json", "b.tar"}
    assert bucket.size("b.tar") == len(data) and bucket.read("empty") == b""
    assert bucket.read("a.json") == data == b"".join(bucket.chunks("b.tar"))
    assert [len(chunk) for chunk in bucket.chunks("b.tar")] == [1000, 1000, 1000, 328]
    pickle.loads(pickle.dumps(bucket)).download("b.tar", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    bucket.delete("a.json")
    bucket.delete("a.json")
    assert bucket.names() == {"empty", "b.tar"}


def test_what_is_not_there_or_cannot_be_kept_is_named(s3_url, tmp_path, monkeypatch):
    bucket = Bucket(s3_url)
    bucket.write("b.tar", b"0123456789")
    for ask in (bucket.read, bucket.size, lambda name: bucket.download(name, tmp_path / name)):
        with pytest.raises(DataError, match=f"{s3_url}/a.tar: no such object"):
            ask("a.tar")
    with pytest.raises(DataError, match=f"{tmp_path}/no/b.tar cannot be written .*{s3_url}/b.tar"):
        bucket.download("b.tar", tmp_path / "no" / "b.tar")
    monkeypatch.setattr(object_store, "READ_LIMIT", 9)
    with pytest.raises(DataError, match="has 10 bytes"):
        bucket.read("b.tar")
    with pytest.raises(DataError, match="s3://no-bucket/x: no such bucket"):
        Bucket("s3://no-bucket/x").names()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:///x", "names no bucket: write s3://BUCKET/FOLDER"),
        ("data/blocks", "is no URL"),
        ("file:///data/blocks", "by its path alone, /data/blocks"),
        ("s4://bucket/x", "no such protocol as s4://"),
        ("oci://bucket/x", "the package for oci:// is not installed"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url, words):
    with pytest.raises(DataError, match=words) as caught:
        Bucket(url).names()
    assert "\n" not in str(caught.value)


def test_what_is_a_url():
    assert is_url("s3://bucket") and is_url("memory://a/b")
    assert not any(map(is_url, ("data/blocks", "/data", "C:\\data", "://", "a b://c")))


def test_a_store_without_credentials_or_answer_says_so(s3_url, tmp_path, monkeypatch):
    def failure() -> str:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        S3FileSystem.clear_instance_cache()
        with pytest.raises(DataError) as caught:
            Bucket(s3_url).names()
        assert str(caught.value).startswith(f"{s3_url}: ") and "\n" not in str(caught.value)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setattr(object_store, "REQUEST_LIMIT", 1.0)
        assert "no answer within 1 s" in failure()
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)  # nobody listens there any more
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert "cannot be reached" in failure()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "set AWS_ACCESS_KEY_ID" in failure()
