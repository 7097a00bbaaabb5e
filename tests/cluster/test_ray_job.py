"""`ray job submit` on a real Ray head that the test starts: the job trains, and a failing one's exit status shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
LIMIT_S = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a Ray head with two CPUs; all its processes end with the test."""
    port, dashboard = free_port(), free_port()
    # Short: socket paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray = subprocess.Popen(
            [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2",
             f"--temp-dir={folder}", "--object-store-memory=134217728", "--disable-usage-stats"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            ray.send_signal(signal.SIGTERM)
            try:
                ray.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(ray.pid, signal.SIGKILL)


def submit(head: str, root: Path, *options: str) -> subprocess.CompletedProcess:
    """Runs the README's command; again while the head, just started, has no agent to run jobs yet."""
    variables = {"IDC_HOME": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    job = ["python", "cluster/train.py", "tiny", "--log.wandb", "disabled", "--evaluate.tokenizer", "split", *options]
    submission = [RAY, "job", "submit", "--address", head, "--working-dir", str(ROOT)]
    submission += ["--runtime-env-json", json.dumps({"env_vars": variables}), "--", *job]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(submission, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > deadline:
            return done
        time.sleep(1)


def wait_for(head: str) -> None:
    """Until the job server answers, at most a minute."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{head}/api/version", timeout=5).read()
            return
        except OSError:
            assert time.monotonic() < deadline, f"no Ray head at {head} after 60 s"
            time.sleep(0.5)


def test_a_submitted_job_does_the_whole_job(head: str, tiny: Any) -> None:
    wait_for(head)
    done = submit(head, tiny.root, "--name", "submitted", "--data.pack_workers", "1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = tiny.root / "runs" / "submitted"
    assert json.loads((run / "scores.json").read_text())["n"]["total"] == 8
    assert (run / "report.html").is_file() and (run / "model" / "model.safetensors").is_file()
    refused = submit(head, tiny.root, "--finetune.stpes", "3")
    assert refused.returncode != 0
    assert "did you mean --finetune.steps?" in refused.stdout + refused.stderr
