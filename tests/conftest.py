"""Fixtures for all tests."""

from __future__ import annotations

import collections
import dataclasses
import gc
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from testing.machines.ray_head import ray_head
from testing.suite import marked
from testing.suite.made_once import made_once

from bench.disturbed.servers import moto

S3_BUCKET = "shards"
LEFT_OUT = ("slurm", "ray", "ranks", "slow")  # by `make quick`; a test counts under the first that it has
left_out: collections.Counter[str] = collections.Counter()
# Ray Train's actor that asks whether a node is about to be taken away: a process of every run, and none ever is.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers that each take all cores get in each other's way
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from testing.suite.workers import ByFile

    return ByFile(config, log)


def pytest_collection(session: pytest.Session) -> None:
    gc.disable()  # what is collected stays to the end; to look through it again and again takes seconds


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from testing.suite.workers import place

        items.sort(key=lambda item: place(item.nodeid))


def pytest_runtest_setup(item: pytest.Item) -> None:
    marked.began(item)


def pytest_deselected(items: list[pytest.Item]) -> None:
    left_out.update(next((name for name in LEFT_OUT if item.get_closest_marker(name)), "other") for item in items)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}) if not left_out else {})


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if left_out and config.option.markexpr:
        counts = ", ".join(f"{count} {name}" for name, count in left_out.items())
        terminalreporter.write_line(f"left out: {counts}; make test runs them all")


@pytest.fixture(autouse=True)
def ctrl_c_as_it_was() -> Iterator[None]:
    """Ray Tune in this process leaves a handler behind, which would take Ctrl-C away from the tests after it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors: more threads of torch only get in each other's way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ of the recipe `tiny`, packed and with its features; to be copied, not to be written to."""

    def make(root: Path) -> None:
        from cluster.prepare import prepare
        from cluster.recipes.registry import RECIPES

        config = RECIPES["tiny"]()
        config = dataclasses.replace(config, root=str(root), data=dataclasses.replace(config.data, pack_workers=1))
        prepare(config, root)

    return made_once(tmp_path_factory, "tiny-data", make) / "data"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[tuple[str, int]]:
    """The address of a Ray head of two CPUs, and of two GPUs as it is told, and the process that leads it."""
    with ray_head("--num-gpus=2") as (address, leader):
        yield address, leader


@pytest.fixture
def head(ray_cluster: tuple[str, int]) -> Iterator[str]:
    """Its address, which RAY_ADDRESS has, too; the environment is afterwards as it was."""
    before = dict(os.environ)
    os.environ["RAY_ADDRESS"], _ = ray_cluster
    yield os.environ["RAY_ADDRESS"]
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data to test against: $IDC_SHARED, or ../shared/data next to the checkout."""
    path = Path(os.environ.get("IDC_SHARED") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (path / "clevr_change_sample").is_dir():
        pytest.skip(f"no real data at {path}: set IDC_SHARED to the folder that has clevr_change_sample")
    return path


@dataclass(frozen=True)
class S3Server:
    """A running S3 server of this machine: its address, the file it logs each request to, its process."""

    address: str
    log: Path
    pid: int

    def requests(self, method: str, key: str) -> int:
        """How often an object of the bucket was asked for so far."""
        return self.log.read_text().count(f"{method} /{S3_BUCKET}/{key} HTTP")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Server]:
    """moto's server in a process of its own: it speaks S3 over a socket and keeps the objects in memory."""
    log = tmp_path_factory.mktemp("s3") / "requests.log"
    with moto(log) as (process, address):
        yield S3Server(address, log, process.pid)


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
