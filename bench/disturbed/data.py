"""Data that cannot be read or reached, and steps that are left out for their loss or gradient."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.disturbed.compare import Bench, Found
from bench.disturbed.run import ROOT, Run
from bench.disturbed.servers import moto
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.arrays import decode_array, encode_array
from shards.format.tars import write_shard
from shards.reading.object_store import Bucket
from shards.reading.reader import Folder

SILENT_S, FAILING_S = 30.0, 12.0  # of a store that does not answer; of reads that fail, longer than they are repeated
SPOILT = 20  # every so many pairs one is: now and then two steps in a row meet one
BUCKET = "shards"


def nan(bench: Bench) -> Found:
    """pairs whose loss is no number: with `skip_limit` 1 the run stops, with 5 the same command goes on, and a worker
    is killed; compared with a run on the same data without stop and kill"""
    root = bench.root / "nan"
    shutil.copytree(bench.root / "data", root / "data")
    _spoil_pairs(root / "data")
    calm = bench.run("nan-calm", root=root)
    calm.end()
    run = bench.run("nan", "--finetune.skip_limit", "1", root=root)
    run.end(3)
    said = run.last_line()
    run.start("--finetune.skip_limit", "5")
    found = _left_out(bench, run, calm, "nan")
    return replace(found, said=f"{said}; {found.said}")


def spike(bench: Bench) -> Found:
    """steps whose gradient is above 2.5 times the usual, with `spike_factor` 2.5, and kill -9 of a worker; compared
    with a run of the same options without the kill"""
    options = "--finetune.spike_factor", "2.5"  # of 1000, nothing that these data hold is above
    calm = bench.run("spike-calm", *options)
    calm.end()
    return _left_out(bench, bench.run("spike", *options), calm, "spike")


def _spoil_pairs(data: Path) -> None:
    """Makes the features of every SPOILT-th pair NaN, as one who packed them so would have."""
    folder, entry = _pairs(data, features=True)
    stream = Folder.open(folder).stream("pair", "train")
    samples = [(key, stream.read(i)) for i, key in enumerate(stream.keys[: entry["samples"]])]
    for _, members in samples[::SPOILT]:
        members["before.npy"] = encode_array(np.full_like(decode_array(members["before.npy"]), np.nan))
    contents = manifest.read(folder)
    for one in contents["shards"]:
        if one["name"] == entry["name"]:
            one |= write_shard(folder, entry["name"], samples)
    manifest.write(folder, contents)


def _left_out(bench: Bench, run: Run, calm: Run, name: str) -> Found:
    """Kills a worker of a run that leaves steps out, and compares it with one of the same that was left alone."""
    run.wait(lambda: run.reached() >= 45)
    since = time.time()
    os.kill(run.worker(1), signal.SIGKILL)
    found = bench.restarted(run, name, since, calm)
    skipped = run.skipped()
    if not skipped or not all(line["ids"] for line in skipped):
        raise DataError(f"{run.folder} has left out no step, or does not say which samples were in it")
    first = skipped[0]["step"]
    # Up to the first of them, nothing differs from the run on good data.
    same = [[one for one in of.records() if one["step"] < first] for of in (run, bench.alone)]
    told = f"{len(skipped)} steps left out, the first {first}; {found.said}"
    return replace(found, equal=found.equal and same[0] == same[1], said=told)


def shard(bench: Bench) -> Found:
    """a bit flipped in a shard that is being read, with `bad_samples` 0; the shard as it was, and the same command
    again"""
    root = bench.root / "shard"
    shutil.copytree(bench.root / "data", root / "data")
    folder, entry = _pairs(root / "data", features=False)
    run = bench.run("shard", "--data.bad_samples", "0", root=root)
    run.wait(lambda: run.reached() >= 45)
    since = time.time()
    _flip(folder / entry["name"])
    run.end(2)
    noticed, said = time.time() - since, run.last_line()
    _flip(folder / entry["name"])
    repeated, again = bench.again(run)
    run.end()
    return Found("shard", noticed, again, repeated, bench.equal(run) and entry["name"] in said, said)


def read(bench: Bench) -> Found:
    """reads that fail with EIO for 12 s in every process of the run"""
    fails = bench.root / "eio"
    path = os.pathsep.join([str(ROOT / "bench" / "disturbed" / "unreadable"), os.environ.get("PYTHONPATH", "")])
    run = bench.run("read", PYTHONPATH=path.strip(os.pathsep), FAULTS_EIO=str(fails))
    run.wait(lambda: run.reached() >= 45)
    since = time.time()
    fails.touch()
    ended = since + FAILING_S
    run.wait(lambda: time.time() > ended)
    fails.unlink()
    return bench.restarted(run, "read", since)


def store(bench: Bench) -> Found:
    """SIGSTOP of the S3 server that the shards are read from, for 30 s, with an empty cache"""
    cache = bench.root / "cache"
    with _s3(bench.root / "s3.txt") as (server, environment):
        place = f"s3://{BUCKET}/tiny"
        for path in _pairs(bench.root / "data", features=False)[0].iterdir():
            Bucket(place).upload(path, path.name)
        # Who waits for a store is not taken for one that hangs: there is more time than the store takes.
        run = bench.run("store", "--data.shards", place, "--cluster.timeout_s", "120", **environment,
                        IDC_CACHE=str(cache))  # fmt: skip
        run.wait(lambda: run.reached() >= 45)
        since = time.time()
        os.kill(server.pid, signal.SIGSTOP)
        for tar in cache.rglob("*.tar"):
            tar.unlink()
        time.sleep(1.0)
        before, ended = run.reached(), since + SILENT_S
        run.wait(lambda: time.time() > ended)
        stood, silent = run.reached(), time.time() - since
        os.kill(server.pid, signal.SIGCONT)
        run.wait(lambda: run.reached() > stood)
        again = time.time() - since
        run.end()
    said = f"{stood - before} steps in {silent:.0f} s without an answer, {len(run.restarts())} restarts"
    return Found("store", None, again, 0, bench.equal(run) and stood == before, said)


def _pairs(data: Path, features: bool) -> tuple[Path, dict]:
    """The folder in `data` with pairs, or with their features; its first entry of pairs to train on."""
    for path in sorted(data.glob("*/manifest.json")):
        contents = manifest.read(path.parent)
        if bool(contents.get("features")) == features:
            return path.parent, next(one for one in contents["shards"] if one["name"].startswith("pairs-train"))
    raise DataError(f"no shard folder in {data}")


def _flip(tar: Path) -> None:
    """Flips a bit in the middle of the first json of a tar."""
    row = next(row for row in index.parse(index.read(index.path_of(tar)), tar) if row.name.endswith(".json"))
    with tar.open("r+b") as file:
        file.seek(row.offset + row.length // 2)
        (byte,) = file.read(1)
        file.seek(row.offset + row.length // 2)
        file.write(bytes([byte ^ 1]))


@contextmanager
def _s3(log: Path) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    """moto's S3 server with an empty bucket, and the variables that lead to it, which this process has too."""
    with moto(log) as (server, address):
        environment = {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        os.environ |= environment
        from s3fs import S3FileSystem

        try:
            S3FileSystem().mkdir(BUCKET)
            yield server, environment
        finally:
            for name in environment:
                os.environ.pop(name, None)
