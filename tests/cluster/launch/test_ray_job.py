"""`ray job submit` on a real Ray of two machines made of namespaces: it trains, and a failing job's status shows."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testing.machines.namespaces import Machines, machines, require
from testing.machines.ray_head import QUICK, RAY, ROOT
from testing.suite.no_java import without_java

pytestmark = pytest.mark.ray

LIMIT_S = 240
UPLOAD_LIMIT = 3 * 2**20  # bytes of code


def submit(head: str, root: Path, token: str, *options: str) -> subprocess.CompletedProcess:
    """Runs the README's command; again while the head, just started, has no agent to run jobs yet."""
    variables = {"IDC_HOME": str(root)} | without_java(root / "no-java")  # no METEOR: it takes a core 7 s
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    job = ["python", "cluster/train.py", "tiny", "--log.wandb", "disabled", "--evaluate.tokenizer", "split", *options]
    submission = [RAY, "job", "submit", "--address", head, "--working-dir", str(ROOT)]
    submission += ["--runtime-env-json", json.dumps({"env_vars": variables}), "--", *job]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            submission, cwd=ROOT, env=os.environ | with_token(token), capture_output=True, text=True, timeout=LIMIT_S
        )
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > deadline:
            return done
        time.sleep(1)


def with_token(token: str) -> dict[str, str]:
    """The environment of a Ray that asks for a token, and of those who use it."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def wait_for(head: str, token: str) -> None:
    """Until the job server answers, at most a minute."""
    deadline = time.monotonic() + 60
    asked = urllib.request.Request(f"{head}/api/version", headers={"Authorization": f"Bearer {token}"})
    while True:
        try:
            urllib.request.urlopen(asked, timeout=5).read()
            return
        except OSError:
            assert time.monotonic() < deadline, f"no Ray head at {head} after 60 s"
            time.sleep(0.5)


def wait_for_nodes(head: str, token: str, count: int) -> None:
    """Until so many nodes have joined, at most a minute: a job is refused if there is no room for its workers."""
    deadline = time.monotonic() + 60
    asked = urllib.request.Request(f"{head}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    while True:
        nodes = json.loads(urllib.request.urlopen(asked, timeout=10).read())["data"]["result"]["result"]
        if sum(node["state"] == "ALIVE" for node in nodes) == count:
            return
        assert time.monotonic() < deadline, f"not {count} nodes after 60 s: {nodes}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Machines, str]]:
    """Two machines with a CPU each, `ray start`ed as by hand, and the token they ask for."""
    require(("ip", "nsenter", "unshare", "setpriv"), ("iproute2",))
    token = secrets.token_hex(32)
    with machines("ray", 2, "198.18.8") as both:
        first = both.address(0)
        for i, role in enumerate((["--head", "--port=6379", "--dashboard-host=0.0.0.0"], [f"--address={first}:6379"])):
            start = ["start", "--block", *role, f"--node-ip-address={both.address(i)}", "--num-cpus=1",
                     "--object-store-memory=134217728", "--disable-usage-stats"]  # fmt: skip
            if i == 1:
                wait_for(f"http://{first}:8265", token)
            subprocess.Popen(
                both.command(i, str(RAY), *start), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | with_token(token) | QUICK,
            )  # fmt: skip
        wait_for_nodes(f"http://{first}:8265", token, 2)
        yield both, token


def test_a_submitted_job_does_the_whole_job_on_both_nodes(two_nodes: tuple[Machines, str], tiny: Any) -> None:
    both, token = two_nodes
    head, home = f"http://{both.address(0)}:8265", both.folder / "home"
    for part in (tiny.shards, tiny.features):
        shutil.copytree(part, home / part.relative_to(tiny.root))
    done = submit(head, home, token, "--name", "spread", "--data.pack_workers", "1")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "finetune 10/10" in said and "CIDEr" in said  # the run's own lines
    run = home / "runs" / "spread"
    assert json.loads((run / "scores.json").read_text())["n"]["total"] == 8
    assert (run / "report.html").is_file() and (run / "model" / "model.safetensors").is_file()

    asked = [RAY, "list", "actors", "--address", head, "--format", "json", "--filter", "class_name=RayTrainWorker"]
    listed = subprocess.run(asked, env=os.environ | with_token(token), capture_output=True, text=True, timeout=60)
    workers = json.loads(listed.stdout)
    assert len(workers) == 2 and len({worker["node_id"] for worker in workers}) == 2

    uploaded = next((both.folder / "ray0" / "tmp" / "ray").glob("session_2*/runtime_resources/working_dir_files/*/"))
    # What the job itself has compiled there was not uploaded.
    files = [path for path in uploaded.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert (uploaded / "cluster" / "train.py") in files
    assert sum(path.stat().st_size for path in files) < UPLOAD_LIMIT
    assert not {"data", "runs", "tests", "docs", ".git", ".venv"} & {path.name for path in uploaded.iterdir()}

    refused = submit(head, home, token, "--finetune.stpes", "3")
    assert refused.returncode != 0
    assert "did you mean --finetune.steps?" in refused.stdout + refused.stderr
    refused = submit(head, home, token, "--name", "spread", "--seed", "1")
    assert refused.returncode != 0
    assert "was made with --seed 0" in refused.stdout + refused.stderr
    assert "exit code 2" in refused.stdout + refused.stderr
