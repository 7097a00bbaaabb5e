"""Shard folders at a URL, against a real S3 server: equal to local ones, fetched once, bounded, never half a tar."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shards import pack as packing
from shards import verify as verifying
from shards.errors import DataError
from shards.format import index, manifest
from shards.reading import cache, object_store, room
from shards.reading.object_store import Bucket
from shards.reading.reader import Folder

SLOW_READER = """
import sys
from shards.reading import object_store
from shards.reading.reader import Folder
object_store.CHUNK = 40  # bytes a request: a tar takes seconds
Folder.open(sys.argv[1]).stream("pair", "train").read(0)
"""


def upload(packed: Path, url: str, *patterns: str) -> str:
    bucket = Bucket(url)
    for pattern in patterns:
        for path in packed.glob(pattern):
            bucket.upload(path, path.name)
    return url


@pytest.fixture
def own(packed, s3_url) -> str:
    """The URL of a copy of the packed folder, to be damaged; of its tars it has the pairs of train alone."""
    return upload(packed, s3_url, "manifest.json", "tokenizer.*", "pairs-train-*")


@pytest.fixture(scope="module")
def copies() -> list[str]:
    return []


@pytest.fixture
def remote(copies, packed, s3_url) -> str:
    """The URL of a copy of the packed folder, the same for all tests."""
    if not copies:
        copies.append(upload(packed, s3_url, "*"))
    return copies[0]


def fetched(server, url: str, names: list[str]) -> list[int]:
    """How often each object was asked for so far."""
    return [server.requests("GET", f"{url.removeprefix('s3://shards/')}/{name}") for name in names]


def largest(packed: Path) -> int:
    return max(shard["bytes"] for shard in manifest.read(packed)["shards"])


def cached(tmp_path: Path) -> dict[str, int]:
    """Sizes of the tars in the cache, finished or not."""
    found = {}
    for path in tmp_path.glob("cache/shards/*/*.tar*"):
        if not path.name.endswith(cache.LOCK):
            try:
                found[path.name] = path.stat().st_size
            except FileNotFoundError:
                continue
    return found


def read_all(url: str, seed: int = 0, rounds: int = 1) -> tuple[dict[str, dict[str, bytes]], int, int]:
    """(every sample of train, read in an order of its own, hits, misses)."""
    folder = Folder.open(url)
    streams = {kind: folder.stream(kind, "train") for kind in manifest.KINDS}
    places = [(kind, i) for kind, stream in streams.items() for i in range(len(stream))] * rounds
    samples = {}
    for number in np.random.default_rng(seed).permutation(len(places)):
        kind, i = places[number]
        samples[streams[kind].keys[i]] = streams[kind].read(i)
    counts = (folder.cache.hits, folder.cache.misses) if folder.cache else (0, 0)
    return samples, *counts


def test_a_folder_at_a_url_reads_as_the_local_one(packed, s3_url, s3_server):
    url = upload(packed, s3_url, "*")
    local, folder = Folder.open(packed), Folder.open(url)
    assert folder.manifest == local.manifest and folder.sha256() == local.sha256() and folder.location == url
    for kind in manifest.KINDS:
        for split in manifest.SPLITS:
            ours, theirs = folder.stream(kind, split), local.stream(kind, split)
            assert ours.keys == theirs.keys
            assert [ours.sample(i) for i in range(len(ours))] == [theirs.sample(i) for i in range(len(theirs))]
    tokenizer = local.manifest["tokenizer"]["file"]
    assert (folder.path / tokenizer).read_bytes() == (packed / tokenizer).read_bytes()
    shards = local.manifest["shards"]
    assert folder.cache.misses == len(shards)
    assert folder.cache.fetched_bytes == sum(shard["bytes"] for shard in shards)
    assert folder.cache.hits > 0
    samples, _, misses = read_all(url)
    assert misses == 0 and samples == read_all(str(packed))[0]
    names = [shard["name"] for shard in shards]
    names += [index.path_of(Path(name)).name for name in names]
    assert fetched(s3_server, url, names) == [1] * len(names)


def test_the_page_about_it_runs(remote, capsys):
    page = (Path(__file__).resolve().parents[3] / "docs" / "storage.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict = {}
    exec(code.replace("s3://my-bucket/blocks", remote), names)
    assert names["record"]["kind"] == "pair" and capsys.readouterr().out.startswith("0 1 ")
    commands = dict(re.findall(r"^python (?:-m )?(\S+) (.*)$", page, re.M))
    assert commands.keys() == {"shards.pack", "shards.verify", "cluster/train.py", "bench/loader.py"}
    assert packing.make_parser().parse_args(shlex.split(commands["shards.pack"])).out == "s3://my-bucket/blocks"
    assert verifying.main([commands["shards.verify"].replace("s3://my-bucket/blocks", remote)]) == 0


@pytest.mark.slow
def test_processes_at_once_fetch_each_tar_once(packed, remote, s3_server):
    names = [shard["name"] for shard in manifest.read(packed)["shards"] if shard["split"] == "train"]
    before = fetched(s3_server, remote, names)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = [pool.apply_async(read_all, (remote, seed)) for seed in range(3)]
        done = [result.get(120) for result in results]
    expected, *_ = read_all(str(packed))
    assert all(samples == expected for samples, _, _ in done)
    assert sum(misses for *_, misses in done) == len(names)
    assert fetched(s3_server, remote, names) == [count + 1 for count in before]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_opened_folder_goes_into_other_processes(packed, remote, method):
    stream = Folder.open(remote).stream("pair", "train")
    first = stream.read(0)
    with multiprocessing.get_context(method).Pool(1) as pool:
        other = pool.apply_async(stream.read, (len(stream) - 1,)).get(60)  # of a tar that is not there yet
    assert first == Folder.open(packed).stream("pair", "train").read(0)
    assert other == stream.read(len(stream) - 1) and stream.folder.cache.misses == 1


def test_a_download_that_is_killed_leaves_nothing_that_others_trust(packed, remote, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLOW_READER, remote])
    try:
        until = time.monotonic() + 60
        while not any(name.endswith(".partial") for name in cached(tmp_path)):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.1)  # some bytes have come
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    (left,) = cached(tmp_path)
    assert left.endswith(".tar.partial")
    stream = Folder.open(remote).stream("photo", "train")
    stream.read(0)
    assert left not in cached(tmp_path), "another tar's fetching clears what was left"
    assert read_all(remote)[0] == read_all(str(packed))[0]


def test_those_who_wait_say_for_what(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "STALL_LIMIT", 0.3)
    stream = Folder.open(remote).stream("pair", "train")
    with open(stream.folder.path / f"pairs-train-000000.tar{cache.LOCK}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=f"waited for another process to fetch {remote}/pairs-train-000000.tar "):
            stream.read(0)
    assert stream.read(0)


@pytest.mark.slow
def test_the_cache_stays_within_its_limit_and_warns_once(packed, remote, tmp_path, monkeypatch, capfd):
    limit = 2 * largest(packed)
    monkeypatch.setenv("IDC_CACHE_GB", str(limit / 1e9))
    expected, *_ = read_all(str(packed))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = [pool.apply_async(read_all, (remote, seed, 2)) for seed in range(2)]
        most = 0
        while not all(result.ready() for result in results):
            most = max(most, sum(cached(tmp_path).values()))
            time.sleep(0.002)
        for result in results:
            samples, hits, misses = result.get(1)
            assert samples == expected and misses > 9 and hits > 0
    assert largest(packed) < most <= limit
    assert capfd.readouterr().err.count("evicted and fetched again and again") == 2, "one warning from each process"


def test_the_least_recently_used_goes_first(packed, remote, tmp_path, monkeypatch):
    folder = Folder.open(remote)
    tars = [folder.path / f"pairs-train-{number:06d}.tar" for number in range(3)]
    sizes = [shard["bytes"] for shard in folder.manifest["shards"] if shard["name"].startswith("pairs-train")]
    monkeypatch.setenv("IDC_CACHE_GB", str((sum(sizes) - min(sizes) + 100) / 1e9))
    folder = Folder.open(remote)
    first = folder.cache.open(tars[0])
    for number in (1, 0, 2):
        os.close(folder.cache.open(tars[number]))
    assert set(cached(tmp_path)) == {tars[0].name, tars[2].name}
    os.close(folder.cache.open(tars[1]))
    assert set(cached(tmp_path)) == {tars[1].name, tars[2].name}
    assert os.pread(first, 1 << 20, 0) == (packed / tars[0].name).read_bytes(), "an open tar outlives its eviction"
    os.close(first)
    assert (folder.cache.hits, folder.cache.misses) == (1, 4)


@pytest.mark.parametrize("damage", [lambda data: data[:-512], lambda data: data + b"x", lambda data: b"x" + data[1:]])
def test_a_tar_of_other_bytes_is_refused_by_name(packed, own, tmp_path, s3_server, damage):
    name = "pairs-train-000001.tar"
    Bucket(own).write(name, damage((packed / name).read_bytes()))
    stream = Folder.open(own).stream("pair", "train")
    with pytest.raises(DataError, match=f"{own}/{name}: its bytes are not those .* fetched twice.*shards.pack"):
        stream.read(stream.find("train-004-c"))
    assert fetched(s3_server, own, [name]) == [2]
    assert cached(tmp_path) == {}
    assert stream.read(0), "the other tars can be read"


def test_what_is_wrong_with_a_folder_at_a_url(packed, own, tmp_path):
    bucket = Bucket(own)
    name = "pairs-train-000001.index.tsv"
    bucket.write(name, b"".join((packed / name).read_bytes().splitlines(True)[1:]))
    with pytest.raises(DataError, match=f"{own}/{name}: its bytes are not those"):
        Folder.open(own).stream("pair", "train")
    bucket.delete("tokenizer.model")
    bucket.write("manifest.json", (packed / "manifest.json").read_bytes().replace(b'"tiny"', b'"tony"'))
    with pytest.raises(DataError, match=f"{own}/manifest.json.* altered"):
        Folder.open(own)
    bucket.delete("manifest.json")
    for url in (own, "s3://no-such-bucket/x"):
        with pytest.raises(DataError, match=f"{url}: no such bucket, or no manifest.json .*shards.pack SOURCE --out"):
            Folder.open(url)


def test_a_folder_that_was_packed_anew_is_another_in_the_cache(own, tmp_path):
    before = Folder.open(own)
    manifest.write(tmp_path, before.manifest | {"source": "other"})
    Bucket(own).upload(tmp_path / "manifest.json", "manifest.json")
    after = Folder.open(own)
    assert after.manifest["source"] == "other" and after.path != before.path
    assert manifest.read(before.path)["source"] == "tiny"


def test_a_cached_tar_that_was_cut_is_fetched_again(packed, remote):
    stream = Folder.open(remote).stream("pair", "train")
    stream.read(0)
    os.truncate(stream.folder.path / "pairs-train-000000.tar", 700)
    assert stream.read(0) == Folder.open(packed).stream("pair", "train").read(0)
    assert stream.folder.cache.misses == 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "50 GB"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, value):
    monkeypatch.setenv("IDC_CACHE_GB", value)
    with pytest.raises(DataError, match="IDC_CACHE_GB is .*must be a number of gigabytes above 0"):
        Folder.open("s3://bucket/folder")


def test_a_cache_or_a_disk_too_small_for_a_tar_says_so(packed, remote, tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(DataError, match="No space left on device while pairs-train-000000.tar .*IDC_CACHE"):
            Folder.open(remote).stream("pair", "train").read(0)
    assert cached(tmp_path) == {}
    monkeypatch.setenv("IDC_CACHE_GB", "1e-6")
    with pytest.raises(DataError, match=f"IDC_CACHE_GB is 1e-06 and {remote}/pairs-train-000000.tar alone takes"):
        Folder.open(remote).stream("pair", "train").read(0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IDC_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"{tmp_path}/file.*Not a directory.*IDC_CACHE"):
        Folder.open(remote)


def test_a_broken_transfer_is_an_error_and_leaves_nothing(own, tmp_path, monkeypatch):
    stream = Folder.open(own).stream("pair", "train")
    monkeypatch.setattr(object_store, "CHUNK", 1000)
    chunks = Bucket.chunks

    def cut(self, name):
        yield next(chunks(self, name))
        self.delete(name)
        yield from chunks(self, name)

    monkeypatch.setattr(Bucket, "chunks", cut)
    with pytest.raises(DataError, match="pairs-train-000000.tar: no such object"):
        stream.read(0)
    assert cached(tmp_path) == {}


def test_those_who_wait_are_patient_while_others_move(remote, monkeypatch):
    """The count of the room is held for longer than the limit, by processes that go through it one after another."""
    monkeypatch.setattr(room, "STALL_LIMIT", 0.3)
    stream = Folder.open(remote).stream("pair", "train")
    path = stream.folder.path.parent / f"room{cache.LOCK}"
    held = threading.Event()

    def busy() -> None:
        with room.locked(path, "make room") as descriptor:
            held.set()
            for _ in range(10):
                os.pwrite(descriptor, b"%020d" % 0, 0)
                time.sleep(0.1)

    thread = threading.Thread(target=busy)
    thread.start()
    assert held.wait(10)
    assert stream.read(0)
    thread.join(10)


def test_a_full_cache_is_looked_through_now_and_then_not_at_each_miss(remote, tmp_path, monkeypatch):
    shards = Folder.open(remote).manifest["shards"]
    sizes = [shard["bytes"] for shard in shards]
    monkeypatch.setenv("IDC_CACHE_GB", str((sum(sizes) - max(sizes) + 100) / 1e9))
    folder, looked = Folder.open(remote), []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: looked.append(pattern) or glob(self, pattern))
    for _ in range(4):  # in turn: the next one is always the one that has just gone
        for shard in shards:
            os.close(folder.cache.open(folder.path / shard["name"]))
    monkeypatch.undo()
    assert folder.cache.misses > 3 * len(shards)
    assert looked.count("*/*.tar") < folder.cache.misses / 4
    assert sum(cached(tmp_path).values()) <= sum(sizes) - max(sizes) + 100
    count = int((folder.path.parent / f"room{cache.LOCK}").read_text())
    assert count == sum(cached(tmp_path).values()), "what is written down is what is there"
