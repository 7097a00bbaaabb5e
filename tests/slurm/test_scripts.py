"""The job scripts without a job: shellcheck, the plan that dryrun.sh prints, its refusals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from testing.machines.slurm_cluster import CODE, Slurm

from cluster.distributed.devices import place, require_room
from cluster.recipes.commandline import parse

SCRIPTS = sorted(path for pattern in ("*.sh", "*.example") for path in (CODE / "slurm").glob(pattern))


@pytest.mark.slow
def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "--external-sources", "--shell=bash", *SCRIPTS],
        cwd=CODE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def dryrun(cluster: Slurm, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return cluster.run("root", "slurm/dryrun.sh", *arguments, IDC_PYTHON=sys.executable, **variables)


@pytest.mark.slurm
def test_the_plan_says_what_the_job_would_do(cluster: Slurm) -> None:
    done = dryrun(
        cluster, "-p", "big", "--nodes=2", "--gpus-per-node=8", "--cpus-per-task=64", "--mem=100G", "--time=1-00:00:00",
        "slurm/pretrain.sh", "tiny", "--pretrain.global_batch_size", "32", "--finetune.global_batch_size=32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nodes    2, each with 64 CPUs, 8 GPUs, 102400 MiB of memory" in done.stderr
    command = done.stderr.splitlines()[-1]
    assert "--stage pretrain tiny --pretrain.global_batch_size 32 --finetune.global_batch_size=32" in command
    assert "--cluster.gpus_per_worker 1 --cluster.workers 16 --cluster.cpus_per_worker 8" in command
    assert not cluster.run("root", "squeue", "-h").stdout


@pytest.mark.slurm
def test_the_plan_keeps_what_is_given(cluster: Slurm) -> None:
    site = cluster.folder / "site.env"
    site.write_text("export IDC_HOME=/scratch/somewhere IDC_TMP=/local\n")
    done = dryrun(
        cluster, "--nodes=2", "--cpus-per-task=2", "slurm/finetune.sh", "tiny", "--cluster.workers=4",
        "--cluster.threads", "3", IDC_SITE=str(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "home     /scratch/somewhere" in done.stderr and "folder   /local/r0.JOB" in done.stderr
    command = done.stderr.splitlines()[-1]
    assert "--cluster.workers=4 --cluster.threads 3 --cluster.gpus_per_worker 0 --cluster.cpus_per_worker 1" in command
    assert command.count("--cluster.workers") == command.count("--cluster.threads") == 1


DERIVE = """
. slurm/lib.sh
read_allocation
derive "$@"
printf '%s\\n' "${DERIVED[@]}"
"""


@pytest.mark.parametrize(
    ("gpus", "given", "workers", "per_worker", "threads"),
    [
        (8, (), 16, 1, None),
        (8, ("--cluster.gpus_per_worker", "auto"), 16, 1, None),
        (8, ("--cluster.gpus_per_worker=0.5", "--cluster.workers", "0"), 32, 0.5, None),
        (8, ("--cluster.gpus_per_worker", "0"), 2, 0, "64"),
        (0, (), 2, 0, "64"),
        (0, ("--cluster.workers=0", "--cluster.gpus_per_worker", "auto"), 2, 0, "64"),
        (8, ("--cluster.workers", "4"), 4, 1, None),
        (8, ("--cluster.workers", "2..16"), 16, 1, None),
    ],
)
def test_the_allocation_and_the_driver_agree_about_workers(
    gpus: int, given: tuple[str, ...], workers: int, per_worker: float, threads: str | None
) -> None:
    """What lib.sh derives is what the driver, told the same, comes to on the Ray of these nodes."""
    environment = {
        "PATH": "/usr/bin:/bin", "IDC_PYTHON": sys.executable, "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_CPUS_PER_NODE": "64(x2)", "SLURM_GPUS_ON_NODE": str(gpus),
    }  # fmt: skip
    command = ["bash", "-euo", "pipefail", "-c", DERIVE, "bash", *given]
    done = subprocess.run(command, cwd=CODE, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    derived = done.stdout.split()
    large = ("--pretrain.global_batch_size", "64", "--finetune.global_batch_size", "64")
    cluster = parse(["tiny", *large, *given, *derived]).config.cluster
    nodes = [{"Alive": True, "Resources": {"CPU": 64.0, "GPU": float(gpus)}}] * 2
    placement = place(cluster, nodes)
    require_room(placement, nodes)
    assert (placement.workers, placement.gpus_per_worker) == (workers, per_worker)
    assert dict(zip(derived[::2], derived[1::2], strict=True)).get("--cluster.threads") == threads
    if gpus and "--cluster.workers" not in given and per_worker:
        alone = place(parse(["tiny", *large, *given]).config.cluster, nodes)
        assert (alone.workers, alone.gpus_per_worker) == (workers, per_worker), "and without lib.sh"


@pytest.mark.slurm
def test_the_plan_of_the_chain(cluster: Slurm) -> None:
    done = dryrun(cluster, "slurm/pipeline.sh", "tiny", IDC_SBATCH="--nodes=2")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stderr.splitlines() if line.startswith("command")]
    words = ("cluster.prepare", "--stage pretrain", "--stage finetune", "--stage evaluate")
    for word, command in zip(words, commands, strict=True):
        assert word in command


@pytest.mark.slurm
def test_a_task_of_a_job_array_is_a_seed(cluster: Slurm) -> None:
    tasks = ("--array=1-2", "slurm/pretrain.sh", "tiny", "--name", "mine")
    done = dryrun(cluster, *tasks)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith(" --name mine-seeds/seed_1 --seed 1")
    refused = dryrun(cluster, *tasks, "--seed=3")
    assert refused.returncode == 2 and "each task of --array is a seed" in refused.stderr
    refused = dryrun(cluster, "--array=1-2", "slurm/sweep.sh", "tiny")
    assert refused.returncode == 2 and "leave out --array" in refused.stderr


@pytest.mark.slurm
def test_the_plan_of_a_sweep_gives_each_trial_its_share_of_a_node(cluster: Slurm) -> None:
    large = ("-p", "big", "--nodes=2", "--gpus-per-node=8", "--cpus-per-task=64", "slurm/sweep.sh", "tiny")
    done = dryrun(cluster, *large, "--trials", "32", "--finetune.lr", "log:1e-4..1e-2")
    assert done.returncode == 0, done.stderr
    command = done.stderr.splitlines()[-1]
    assert "tune/sweep.py tiny --trials 32 --finetune.lr log:1e-4..1e-2" in command
    assert "--cluster.gpus_per_worker 1 --cluster.cpus_per_worker 8" in command and "cluster.workers" not in command
    refused = dryrun(cluster, *large, "--finetune.lr", "log:0..1")
    assert refused.returncode == 2 and "must begin above 0" in refused.stderr


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slurm/pretrain.sh", "tiny", "--finetune.stpes", "3"), "did you mean --finetune.steps?"),
        (("-p", "nowhere", "slurm/pretrain.sh"), "Invalid partition"),
        (("slurm/nothing.sh",), "usage: slurm/dryrun.sh"),
    ],
)
def test_the_plan_refuses_mistakes(cluster: Slurm, arguments: tuple, message: str) -> None:
    done = dryrun(cluster, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_scripts_say_where_they_belong(tmp_path: Path) -> None:
    copy = tmp_path / "pretrain.sh"
    shutil.copy(CODE / "slurm" / "pretrain.sh", copy)
    environment = {"PATH": "/usr/bin:/bin", "IDC_PYTHON": sys.executable}
    for folder, message in (
        (tmp_path, "run sbatch in the checkout"),
        (CODE, "not inside a Slurm job: sbatch pretrain.sh"),
    ):
        done = subprocess.run(["bash", copy], cwd=folder, env=environment, capture_output=True, text=True, timeout=20)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
