"""`python -m cluster.doctor` as it is typed: on this machine, on a Ray cluster of two nodes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from testing.machines.ray_head import LEAN, QUICK, free_ports, ray_head
from testing.machines.servers import end

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 200


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    here = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_", "IDC_HOME"))}
    command = [sys.executable, "-m", "cluster.doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, env=here | variables, capture_output=True, text=True, timeout=LIMIT_S)


@pytest.mark.slow  # ranks that sum, and torch in several processes
def test_this_machine_is_looked_at(tmp_path: Path, tiny_data: Path) -> None:
    shutil.copytree(tiny_data / "tiny", tmp_path / "damaged")
    shards = json.loads((tmp_path / "damaged" / "manifest.json").read_bytes())["shards"]
    tar = tmp_path / "damaged" / shards[0]["name"]
    data = bytearray(tar.read_bytes())
    data[600] ^= 1  # in the first member
    tar.write_bytes(data)
    done = doctor("--root", str(tmp_path), "--shards", str(tiny_data / "tiny"), str(tmp_path / "damaged"), "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    by_check: dict[str, list[dict]] = {}
    for one in said["findings"]:
        by_check.setdefault(one["check"], []).append(one)
    assert {"packages", "gpus", "code", "/dev/shm", "disk", "ports", "java", "folder", "readback", "gloo"} <= set(
        by_check
    )
    assert [one["level"] for one in by_check["data"]] == ["OK", "MISS"], by_check["data"]
    assert "is damaged (crc32c differs)" in by_check["data"][1]["found"] and by_check["data"][1]["fix"]
    assert by_check["gloo"][0]["found"].startswith("the sum over 2 ranks is right")
    wrong = [one for one in said["findings"] if one["level"] == "MISS" and one["check"] != "data"]
    assert said["level"] == "MISS" and not wrong, wrong
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]  # nothing of its own is left


@pytest.mark.ray
def test_every_node_of_a_ray_cluster_is_looked_at(tmp_path: Path) -> None:
    with ray_head() as (address, _), open(tmp_path.with_suffix(".txt"), "w+") as said:
        port, agent, agent_grpc = free_ports(3)
        second = subprocess.Popen(
            [*LEAN, "--block", f"--address={address}", "--num-cpus=1", f"--node-manager-port={port}",
             f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
             "--object-store-memory=134217728", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"],
            stdout=said, stderr=said, start_new_session=True, env=os.environ | QUICK | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            waited = [sys.executable, "-m", "cluster.distributed.nodes", "2", "--limit", "60"]
            there = subprocess.run(waited, cwd=ROOT, env=os.environ | {"RAY_ADDRESS": address}, timeout=LIMIT_S)
            assert there.returncode == 0, said.seek(0) or said.read()
            done = doctor("--root", str(tmp_path), RAY_ADDRESS=address)
        finally:
            end(second, limit_s=10)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any("the files of 2 nodes are read back" in line for line in lines), done.stdout
    assert any("the sum over 2 ranks is right, 2 nodes" in line for line in lines), done.stdout
    assert any(line.startswith("OK    clock") for line in lines), done.stdout
    assert lines[-1].partition(",")[0].endswith(": 2 nodes") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "arguments", "code", "message"),
    [
        ("127.0.0.1:9", ("--limit", "5"), 1, "MISS  ray         no cluster at 127.0.0.1:9"),  # nothing listens there
        ("auto", (), 2, "RAY_ADDRESS 'auto' must be the Ray cluster's HOST:PORT"),
        ("", ("--limit", "0"), 2, "--limit 0 must be more than 0 seconds"),
        ("", ("--shrads", "data"), 2, "did you mean --shards?"),
    ],
)
def test_what_cannot_be_is_said(address: str, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = doctor(*arguments, **({"RAY_ADDRESS": address} if address else {}))
    assert done.returncode == code and message in done.stdout + done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
