"""The commands of the pages about clusters, the manifest for Kubernetes: what can be checked without a job."""

from __future__ import annotations

import os
import shlex
import sys

import pytest
import yaml
from testing.machines.slurm_cluster import CODE, Slurm

from cluster.recipes.commandline import parse

PAGE = "".join((CODE / "docs" / f"{name}.md").read_text() for name in ("clusters", "slurm", "preflight")).replace(
    "\\\n", " "
)
MANIFEST = CODE / "docs" / "kuberay-rayjob.yaml"
LINES = [line for block in PAGE.split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]


@pytest.mark.slurm
@pytest.mark.parametrize("line", [line for line in LINES if " slurm/" in f" {line}"])
def test_slurm_takes_the_command(cluster: Slurm, line: str) -> None:
    words = shlex.split(line)
    variables = {"IDC_PYTHON": sys.executable, "SBATCH_PARTITION": "big"}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    if words[0] in ("sbatch", "slurm/dryrun.sh"):
        words = words[1:]
    done = cluster.run("root", "slurm/dryrun.sh", *words, **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python cluster/train.py")])
def test_the_driver_takes_the_command(line: str) -> None:
    assert parse(shlex.split(line, comments=True)[2:]).evaluates


def test_the_manifest_names_a_command_and_as_many_gpus_as_it_uses() -> None:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    python, script, *options = shlex.split(spec["entrypoint"])
    assert (python, os.path.basename(script)) == ("python", "train.py")
    config = parse(options).config
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"]) == config.cluster.workers
    assert spec["rayClusterSpec"]["rayVersion"] in (CODE / "pyproject.toml").read_text()
