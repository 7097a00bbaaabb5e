"""The job scripts on a real Slurm of two nodes: what they make, how they end and what they leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from testing.machines.slurm_cluster import Slurm

pytestmark = pytest.mark.slurm

ALICE, BOB = "daemon", "games"  # accounts that every Linux has; neither is root
TINY = ("tiny", "--log.wandb", "disabled", "--evaluate.tokenizer", "split")
NODES = "--nodes=2"


def test_a_chain_ends_where_a_link_fails(cluster: Slurm) -> None:
    log = f"--output={cluster.home(ALICE)}/job-%j.log"
    job = cluster.submit(
        ALICE, "slurm/pipeline.sh", *TINY, "--data.shards", "data/none", "--data.source", "none", "--name", "broken",
        IDC_SBATCH=log, IDC_SBATCH_PACK=log,
    )  # fmt: skip
    cluster.wait(job)
    chain = dict(line.split() for line in cluster.output(ALICE, job).splitlines())
    assert cluster.wait(chain["pack"])["ExitCode"] == "2:0"
    assert "--data.shards" in cluster.output(ALICE, chain["pack"])
    assert [cluster.wait(chain[name])["JobState"] for name in ("pretrain", "finetune", "evaluate")] == ["CANCELLED"] * 3


def test_a_failing_drivers_exit_code_is_the_jobs(cluster: Slurm, with_data: Callable[[str], Path]) -> None:
    with_data(BOB)
    job = cluster.submit(BOB, "slurm/evaluate.sh", *TINY, "--name", "untrained")
    assert cluster.wait(job)["ExitCode"] == "2:0", cluster.output(BOB, job)
    log = cluster.output(BOB, job).splitlines()
    assert "1 nodes after" in log[-2] and "has no trained model to evaluate" in log[-1]
    assert cluster.left_behind(BOB) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", "--finetune.stpes", "3"), "did you mean --finetune.steps?"),
        (
            ("tiny", "--cluster.workers", "two"),
            "--cluster.workers 'two' is no number of workers",
        ),
        (("tiny", "--finetune.global_batch_size", "9"), "must be a multiple of --finetune.contrastive_group 2"),
    ],
)
def test_a_mistake_ends_the_job_before_ray_is_started(cluster: Slurm, arguments: tuple, message: str) -> None:
    job = cluster.submit(ALICE, "slurm/finetune.sh", *arguments)
    assert cluster.wait(job)["ExitCode"] == "2:0"
    assert message in cluster.output(ALICE, job)
    assert "head" not in cluster.output(ALICE, job)


def test_a_dead_ray_ends_the_job_at_once(cluster: Slurm, with_data: Callable[[str], Path]) -> None:
    home = with_data(BOB)
    arguments = (*TINY, "--name", "struck", "--pretrain.steps", "100000")
    job = cluster.submit(BOB, NODES, "--no-requeue", "slurm/pretrain.sh", *arguments)
    cluster.wait_while_running(BOB, job, lambda: (home / "runs" / "struck" / "metrics.jsonl").exists())
    cluster.machines.run(1, "pkill", "-KILL", "-u", BOB, "raylet")  # nothing but this job's is on that machine
    assert cluster.wait(job, limit=60)["ExitCode"] == "1:0"
    log = cluster.output(BOB, job)
    assert "Ray on slurm1 ended" in log and "Ray ended before its time" in log
    assert "Slurm does not requeue the job" in log and "struck is at " in log
    again = " ".join(("slurm/pretrain.sh", *arguments))
    assert f"; to go on: sbatch with the same options, {again}\n" in log
    assert cluster.left_behind(BOB) == []


def test_two_users_at_once_and_scancel(cluster: Slurm, with_data: Callable[[str], Path]) -> None:
    """On the same two nodes, one trains to the end; the other one's job is cancelled and leaves nothing behind."""
    endless = {ALICE: (), BOB: ("--pretrain.steps", "100000", "--cluster.timeout_s", "600")}
    jobs = {}
    for user, more in endless.items():
        with_data(user)
        jobs[user] = cluster.submit(user, NODES, "slurm/pretrain.sh", *TINY, "--name", "together", *more)
    run = cluster.home(BOB) / "idc" / "runs" / "together"
    cluster.wait_for("two jobs at once", lambda: len(_running(cluster)) == 2)
    with cluster.standing_still(BOB, jobs[BOB], (run / "metrics.jsonl").exists):  # its steps would be no news
        ended = cluster.wait(jobs[ALICE])
    assert ended["ExitCode"] == "0:0", cluster.output(ALICE, jobs[ALICE])
    assert any((cluster.home(ALICE) / "idc" / "runs" / "together" / "checkpoints").iterdir())
    assert cluster.left_behind(ALICE) == []

    cluster.wait_while_running(BOB, jobs[BOB], lambda: (run / "metrics.jsonl").exists())
    there = [*cluster.machines.processes(0, BOB), *cluster.machines.processes(1, BOB)]
    assert any("RayTrainWorker" in line for line in there)
    assert not [line for line in there if re.search("Coordinator|DashboardAgent|dashboard.py|client.server", line)]
    assert cluster.left_behind(BOB)
    cluster.run(BOB, "scancel", jobs[BOB])
    assert cluster.wait(jobs[BOB])["JobState"] == "CANCELLED"
    assert "requeue" not in cluster.output(BOB, jobs[BOB])
    assert "ended from outside, together is at " in cluster.output(BOB, jobs[BOB])
    assert cluster.left_behind(BOB) == []
    for user, job in jobs.items():
        assert cluster.show(job)["NodeList"] == "slurm[0-1]"
        assert "2 nodes after" in cluster.output(user, job)
    heads = {line for user, job in jobs.items() for line in cluster.output(user, job).splitlines() if "head" in line}
    assert len(heads) == 2  # other ports


def test_a_sweep_on_two_nodes(cluster: Slurm, with_data: Callable[[str], Path]) -> None:
    folder = with_data(BOB) / "runs" / "sweeps" / "rates"
    rates = ("--search", "grid", "--finetune.lr", "choice:0.001/0.002", "--repeats", "0", "--pretrain.steps", "0")
    job = cluster.submit(BOB, NODES, "slurm/sweep.sh", *TINY, "--name", "rates", *rates)
    assert cluster.wait(job)["ExitCode"] == "0:0", cluster.output(BOB, job)
    assert "2 trials at once" in cluster.output(BOB, job)  # a CPU on each node
    assert len((folder / "results.csv").read_text().splitlines()) == 3 and (folder / "report.html").is_file()
    assert cluster.left_behind(BOB) == []


def _running(cluster: Slurm) -> list[str]:
    return cluster.run("root", "squeue", "-h", "-t", "running").stdout.splitlines()


@pytest.mark.parametrize("script", ["pretrain", "finetune", "evaluate", "pack", "sweep"])
def test_a_large_cluster_takes_the_scripts_as_they_are(cluster: Slurm, script: str) -> None:
    large = ("--partition=big", "--nodes=16", "--gpus-per-node=8", "--exclusive", "--time=2-00:00:00")
    done = cluster.run(ALICE, "sbatch", "--test-only", *large, f"slurm/{script}.sh")
    assert done.returncode == 0, done.stderr
    assert "using 2048 processors on nodes big[0-15]" in done.stderr
