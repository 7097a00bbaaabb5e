"""Fixtures for all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testing.servers import wait_until_it_listens

S3_BUCKET = "shards"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors: more threads of torch only get in each other's way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data to test against: $IDC_SHARED, or ../shared/data next to the checkout."""
    path = Path(os.environ.get("IDC_SHARED") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (path / "clevr_change_sample").is_dir():
        pytest.skip(f"no real data at {path}: set IDC_SHARED to the folder that has clevr_change_sample")
    return path


@dataclass(frozen=True)
class S3Server:
    """A running S3 server of this machine: its address and the file it logs each request to."""

    address: str
    log: Path

    def requests(self, method: str, key: str) -> int:
        """How often an object of the bucket was asked for so far."""
        return self.log.read_text().count(f"{method} /{S3_BUCKET}/{key} HTTP")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Server]:
    """moto's server in a process of its own: it speaks S3 over a socket and keeps the objects in memory."""
    log = tmp_path_factory.mktemp("s3") / "requests.log"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=file, stderr=file
        )
    try:
        wait_until_it_listens(port, process, lambda: f"moto's server: {log.read_text()}")
        yield S3Server(f"http://127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture
def s3_url(s3_server, monkeypatch, tmp_path) -> Iterator[str]:
    """An empty folder of a bucket, s3://shards/SOME-NAME; the environment leads this process and its children there.

    The cache for reading from it is tmp_path/cache.
    """
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "IDC_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "IDC_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    S3FileSystem.clear_instance_cache()  # one made elsewhere knows another address
    files = S3FileSystem()
    if not files.exists(S3_BUCKET):
        files.mkdir(S3_BUCKET)
    yield f"s3://{S3_BUCKET}/{uuid.uuid4().hex[:12]}"
    S3FileSystem.clear_instance_cache()
