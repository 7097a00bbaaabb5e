"""A file of the working folder that has the name of one of our packages is not run in its place; where data then go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cluster", "idc", "shards", "tune")
ON_A_WORKER = """
import sys
sys.path[0] = sys.argv[1]  # as `python cluster/train.py` has it
from cluster.config.fields import ClusterConfig
from cluster.launch.ray_train import start_ray
start_ray(ClusterConfig(workers=1))
import psutil, ray
started = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
assert any("gcs_server" in one for one in started)
assert not [one for one in started if "monitor.py" in one or "dashboard.py" in one], started
@ray.remote(num_cpus=1)
def where():
    return {name: __import__(name).__file__ for name in ("cluster", "idc", "shards", "tune")}
found = ray.get(where.remote(), timeout=60)
ray.shutdown()
assert found == {name: f"{sys.argv[1]}/{name}/__init__.py" for name in found}, found
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a file of the name of each package."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working folder')")
    return tmp_path


def run(folder: Path, *words: str, code: Path = ROOT) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(code)}
    environment.pop("IDC_HOME", None)
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("command", ["cluster/train.py", "tune/sweep.py"])
def test_scripts_run_our_packages(folder: Path, command: str) -> None:
    done = run(folder, str(ROOT / command), "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: python " + command), done.stderr


@pytest.mark.parametrize(
    "module", ["cluster.train", "cluster.prepare", "cluster.features", "cluster.distributed.nodes"]
)
def test_modules_run_our_packages(folder: Path, module: str) -> None:
    """Python itself looks for the package of the command in the working folder first: docs/trouble.md says so."""
    (folder / "cluster.py").unlink()
    done = run(folder, "-m", module, "--help")
    assert done.returncode == 0 and "usage: " in done.stdout, done.stderr


def test_console_scripts_run_our_packages(folder: Path) -> None:
    done = run(folder, str(Path(sys.executable).with_name("idc-train")), "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


@pytest.mark.ray
def test_workers_run_our_packages(folder: Path) -> None:
    done = run(folder, "-c", ON_A_WORKER, str(ROOT))
    assert done.returncode == 0, done.stderr


def test_data_and_runs_of_an_installed_package_lie_in_the_working_folder(tmp_path: Path) -> None:
    """As pip leaves it: packages in site-packages beside a dist-info folder, no checkout."""
    packages, folder = tmp_path / "lib" / "site-packages", tmp_path / "here"
    (packages / "image_difference_captioning-0.1.0.dist-info").mkdir(parents=True)
    folder.mkdir()
    for name in NAMES:
        shutil.copytree(ROOT / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    refused = run(folder, "-m", "cluster.train", "tiny", "--data.source", "none", code=packages)
    assert refused.returncode == 2
    assert f"--data.shards {folder}/data/tiny: no such folder" in refused.stderr.splitlines()[-1], refused.stderr
    assert not (packages / "data").exists() and not (packages / "runs").exists()
