"""Workers on a Ray cluster that the test starts: how many, what they know, what is kept of what they say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.config.fields import ClusterConfig
from cluster.config.options import override
from cluster.distributed.devices import Placement
from cluster.errors import ConfigError, TrainingError
from cluster.launch import asked, credentials, ray_train, workers
from cluster.launch.credentials import handed_over, read
from cluster.tracking.run_log import read_metrics
from cluster.training.worker import Job
from shards.reading.object_store import Bucket

ROOT = Path(__file__).resolve().parents[3]
SECRET = "not-for-everybody"
HOLD = """
import ray, time
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
@ray.remote(num_cpus=1)
class Holder:
    def here(self): return True
holder = Holder.remote()
print(ray.get(holder.here.remote()), flush=True)
time.sleep(600)
"""


def job(tiny: Any, run: Path, **more: Any) -> Job:
    """A job of the recipe `tiny` on CPUs, in an empty run folder."""
    run.mkdir(parents=True)
    config = override(tiny.config, [("cluster.gpus_per_worker", "0"), ("pretrain.steps", "2"), ("name", run.name)])
    return Job(config, run, tiny.shards, tiny.features, more.pop("stages", ()), **more)


@pytest.mark.ray
def test_rays_word_on_gpus_decides(head: str) -> None:
    import ray

    for options, numbers in (({}, (2, 1)), ({"gpus_per_worker": 0}, (2, 0)), ({"gpus_per_worker": 0.5}, (4, 0.5))):
        options |= {"cpus_per_worker": 0.5}
        try:
            found = ray_train.start_ray(ClusterConfig(**options))
            assert (found.workers, found.gpus_per_worker) == numbers
        finally:
            ray.shutdown()
    with pytest.raises(ConfigError, match="--cluster.workers 3.*2 GPUs for 2"):
        ray_train.start_ray(ClusterConfig(workers=3, cpus_per_worker=0.5))
    assert not ray.is_initialized()


@pytest.mark.ray
def test_secrets_reach_the_workers_and_nobody_else(head: str, tiny: Any, s3_url: str, tmp_path, monkeypatch) -> None:
    """The run's shards are in a store that asks for keys, which the cluster's own environment does not have."""
    import ray

    for path in tiny.shards.iterdir():
        Bucket(s3_url).upload(path, path.name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    try:
        ray_train.start_ray(ClusterConfig(gpus_per_worker=0))
        told = ray.get_runtime_context().runtime_env
        assert "AWS_ENDPOINT_URL" in told["env_vars"] and SECRET not in json.dumps(dict(told))
    finally:
        ray.shutdown()
    run = tmp_path / "run"
    with asked.listening():
        ray_train.fit(dataclasses.replace(job(tiny, run, stages=("pretrain",)), shards=s3_url))
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGUSR1), "Ray had it in between"
        with pytest.raises(SystemExit, match="85"):  # as while captions are scored
            os.kill(os.getpid(), signal.SIGTERM)
    assert [record["step"] for record in read_metrics(run)] == [1, 2]
    assert not (run / credentials.FILE).exists()
    for rank in range(2):
        log = (run / "logs" / f"rank_{rank}.log").read_text()
        assert log.startswith("--- 2") and f"rank {rank} on {socket.gethostname()}, process" in log
        assert "Found credentials in environment variables" in log and SECRET not in log


def test_the_file_of_secrets_is_its_owners_alone(tmp_path: Path, monkeypatch) -> None:
    for name in credentials.SECRETS:
        monkeypatch.delenv(name, raising=False)
    with handed_over(tmp_path) as path:
        assert path is None and read(path) == {}
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    with handed_over(None) as path:
        assert path is None
    (tmp_path / credentials.FILE).symlink_to(tmp_path / "elsewhere")  # of a driver that was killed, or of a stranger
    with pytest.raises(RuntimeError), handed_over(tmp_path) as path:
        assert path.stat().st_mode & 0o777 == 0o600 and read(path) == {"WANDB_API_KEY": SECRET}
        raise RuntimeError("a run that fails")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="not the same folder on all nodes"):
        read(tmp_path / credentials.FILE)


@pytest.mark.ray
def test_a_failing_worker_is_named_with_its_log(head: str, tiny: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        TrainingError, match=r"worker 0: AssertionError.*its output: .*/run/logs/rank_0\.log\)"
    ) as error:
        ray_train.fit(job(tiny, run, exports=True))  # and there is no checkpoint to export
    assert (run / "logs" / "rank_0.log").is_file(), error.value


@pytest.mark.ray
def test_workers_that_cannot_start_end_the_run_within_the_limit(head: str, tiny: Any, tmp_path: Path) -> None:
    """Another driver holds one of the two CPUs."""
    waiting = job(tiny, tmp_path / "run")
    waiting = dataclasses.replace(waiting, config=override(waiting.config, [("cluster.timeout_s", "3")]))
    other = subprocess.Popen([sys.executable, "-c", HOLD], env=os.environ, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "True\n"
        started = time.monotonic()
        with pytest.raises(TrainingError, match=r"within --cluster.timeout_s 3 for 2 workers.* have 1 CPUs free"):
            ray_train.fit(waiting)
        assert time.monotonic() - started < 60
    finally:
        with contextlib.suppress(ProcessLookupError):
            other.kill()
        other.wait(30)


@pytest.mark.ray
def test_workers_that_are_slow_to_start_are_given_up(head: str, tiny: Any, tmp_path: Path, monkeypatch) -> None:
    """They have their places, and their processes sleep before they do anything else."""
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(60)")
    slow = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(tmp_path)}
    monkeypatch.setattr(Placement, "environment", property(lambda placement: slow))
    monkeypatch.setattr(workers, "START_S", 1.0)
    given_up = job(tiny, tmp_path / "run")
    limits = [("cluster.timeout_s", "5"), ("cluster.restarts", "0")]
    given_up = dataclasses.replace(given_up, config=override(given_up.config, limits))
    started = time.monotonic()
    with pytest.raises(TrainingError, match="the workers did not start within 5 s, --cluster.timeout_s or 1, the long"):
        ray_train.fit(given_up)
    assert 5 < time.monotonic() - started < 50


NATIVE = """
import ctypes, logging, os, sys
from pathlib import Path
from cluster.tracking.worker_logs import keep_output
keep_output(Path(sys.argv[1]), 3, "cuda:1")
os.write(2, b"to the descriptor\\n")
ctypes.CDLL(None).puts(b"from C")
ctypes.CDLL(None).fflush(None)
print("from Python")
logging.warning("from a logger")
os.system("echo from a child")
os.abort()
"""


def test_everything_that_a_process_says_is_in_its_log(tmp_path: Path) -> None:
    for count in (1, 2):  # a run that goes on writes behind what is there
        done = subprocess.run(
            [sys.executable, "-c", NATIVE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode < 0 and done.stdout + done.stderr == ""
        lines = (tmp_path / "logs" / "rank_3.log").read_text().splitlines()
        for said in ("to the descriptor", "from C", "from Python", "WARNING:root:from a logger", "from a child"):
            assert lines.count(said) == count, lines
        assert sum(line.startswith("--- ") and line.endswith(", cuda:1") for line in lines) == count
