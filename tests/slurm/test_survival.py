"""Jobs that are struck: asked to stop, out of time, a node killed. Each goes on by itself, on the curve of its like.

What the losses of a run are that nothing happens to is told by two workers on this machine, without Slurm and Ray.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from testing.machines.slurm_cluster import Slurm
from testing.mirror_files import history
from testing.multirank import fit
from testing.suite.no_java import without_java

from cluster.tracking.run_log import read_metrics

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]

CAROL, BOB = "mail", "games"  # she has no data yet
STEPS = {"pretrain": 100, "finetune": 60}
# Without dropout, of which every worker draws its own; without checkpoints but the last and those that are asked for.
RECIPE = (
    "tiny", "--model.dropout", "0", "--pretrain.steps", str(STEPS["pretrain"]),
    "--pretrain.checkpoint_every", "1000",
)  # fmt: skip
UNWATCHED = ("--log.wandb", "disabled")
WHOLE = (
    *RECIPE, "--evaluate.tokenizer", "split", "--finetune.steps", str(STEPS["finetune"]),
    "--finetune.checkpoint_every", "1000", "--finetune.validate_every", "1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[dict]]:
    """What is measured at each step of a run that nothing happens to; made when it is first called."""

    @functools.cache
    def make() -> list[dict]:
        from cluster.pipeline import run
        from cluster.recipes.commandline import parse

        root = tmp_path_factory.mktemp("undisturbed")
        (root / "data").symlink_to(tiny_data)
        run(parse([*WHOLE, *UNWATCHED, "--stage", "train", "--root", str(root), "--cluster.workers", "2"]), fit)
        found = steps_of(root / "runs" / "tiny")
        assert [(record["stage"], record["step"]) for record in found] == in_order(*STEPS)
        return found

    return make


def in_order(*stages: str) -> list[tuple[str, int]]:
    return [(stage, step) for stage in stages for step in range(1, STEPS[stage] + 1)]


def steps_of(run: Path) -> list[dict]:
    """What was measured at each step that a run has logged."""
    return [record for record in read_metrics(run) if "loss" in record]


def numbers(record: dict) -> dict[str, float]:
    return {**record["loss"], "grad_norm": record["grad_norm"]}


def far(run: Path, stage: str, step: int) -> Callable[[], bool]:
    """Whether a run is `step` steps far in a stage."""
    return lambda: sum(record["stage"] == stage for record in steps_of(run)) >= step


def test_a_chain_is_asked_to_stop_and_runs_out_of_time(cluster: Slurm, undisturbed: Callable[[], list[dict]]) -> None:
    home = cluster.home(CAROL) / "idc"
    run = home / "runs" / "tiny"
    log = f"--output={home.parent}/job-%j.log"
    job = cluster.submit(CAROL, "slurm/pipeline.sh", *WHOLE, "--log.wandb", "offline", IDC_SBATCH=f"--nodes=2 {log}",
                         IDC_SBATCH_PACK=f"--cpus-per-task=1 {log}",
                         **without_java(home.parent / "no-java"))  # fmt: skip  # no METEOR: it takes a core 7 s
    assert cluster.wait(job)["JobState"] == "COMPLETED", cluster.output(CAROL, job)
    chain = dict(line.split() for line in cluster.output(CAROL, job).splitlines())
    assert list(chain) == ["pack", "pretrain", "finetune", "evaluate"]

    def asked(stage: str) -> bool:
        return "asked to stop" in cluster.output(CAROL, chain[stage])

    cluster.wait_while_running(CAROL, chain["pack"], lambda: any((home / "data").glob("*/*.tar")))
    cluster.run(CAROL, "scancel", "--signal=USR1", "--batch", chain["pack"])
    cluster.wait(chain["pack"])
    with cluster.standing_still(CAROL, chain["pretrain"], far(run, "pretrain", 3)):
        cluster.run(CAROL, "scancel", "--signal=USR1", "--batch", chain["pretrain"])
        cluster.wait_for("word of the signal", lambda: asked("pretrain"), 10)
    with cluster.standing_still(CAROL, chain["finetune"], far(run, "finetune", 3)):
        # Slurm looks at limits every 30 s. Of the 120 s that it gives, nobody waits for the end.
        cluster.run("root", "scontrol", "update", f"JobId={chain['finetune']}", "EndTime=now+120")
        undisturbed()  # meanwhile
        cluster.wait_for("word of the time limit", lambda: asked("finetune"), 40)
    cluster.wait_for("requeued job", lambda: cluster.show(chain["finetune"])["Restarts"] == "1", 60)
    cluster.run("root", "scontrol", "update", f"JobId={chain['finetune']}", "TimeLimit=UNLIMITED")

    for name, number in chain.items():
        ended = cluster.wait(number)
        assert ended["ExitCode"] == "0:0", f"{name}: {cluster.output(CAROL, number)}"
        assert ended["Restarts"] == str(int(name != "evaluate")), f"{name}: {cluster.output(CAROL, number)}"
    packed = cluster.output(CAROL, chain["pack"])
    assert f"requeued, because it was asked to stop: job {chain['pack']} goes on, data is at " in packed
    for name in STEPS:
        text = cluster.output(CAROL, chain[name])
        first, _, second = text.partition(f"job      {chain[name]} ({name}), start 2, ")
        assert f"job      {chain[name]} ({name}), start 1, " in first and "2 nodes after" in second
        assert f"requeued, because it was asked to stop: job {chain[name]} goes on, tiny is at {name}/step_" in first
        assert "--cluster.workers 2" in text  # one a node
    found = steps_of(run)
    assert [(record["stage"], record["step"]) for record in found] == in_order(*STEPS)  # no step twice, none left out
    assert list(map(numbers, found)) == list(map(numbers, undisturbed()))
    # Four starts are one run in W&B, which has each line of the log once.
    assert len({path.name for path in (run / "wandb").glob("offline-run-*/*.wandb")}) == 1
    lines = len(read_metrics(run))
    sent = history(run)
    assert [record["_step"] for record in sent] == list(range(lines))
    assert [step for record in sent if (step := record.get("pretrain/step"))] == list(range(1, STEPS["pretrain"] + 1))
    assert (run / "model" / "model.safetensors").is_file() and (run / "report.html").is_file()
    assert json.loads((run / "scores.json").read_text())["n"]["total"] == 8
    assert cluster.left_behind(CAROL) == [] and not any((home / "runs" / ".slurm").iterdir())


def test_a_killed_node_leaves_the_job_to_the_rest(
    cluster: Slurm, with_data: Callable[[str], Path], undisturbed: Callable[[], list[dict]]
) -> None:
    """As the one task of a job array, so that the seed is its number and Slurm is asked for it by that."""
    run = with_data(BOB) / "runs" / "tiny-seeds" / "seed_0"
    cluster.wait_until_idle(2)  # of a range, Slurm gives what is there
    job = cluster.submit(BOB, "--nodes=1-2", "--array=0", "slurm/pretrain.sh", *RECIPE, *UNWATCHED,
                         "--finetune.steps", "0", "--pretrain.checkpoint_every", "5")  # fmt: skip
    try:
        with cluster.standing_still(BOB, job, far(run, "pretrain", 6)):
            cluster.machines.kill(1)
        # Slurm finds out by itself, but not within half a minute. It is told, as by a site's health check.
        cluster.run("root", "scontrol", "update", "NodeName=slurm1", "State=DOWN", "Reason=dead")
        ended = cluster.wait(job)
    finally:
        cluster.machines.restart(1)
        cluster.start_node(1)
    assert (ended["ExitCode"], ended["Restarts"], ended["NodeList"]) == ("0:0", "1", "slurm0"), cluster.output(BOB, job)
    assert "--cluster.workers 1" in cluster.output(BOB, job).partition("start 2, ")[2]
    found = steps_of(run)
    assert [(record["stage"], record["step"]) for record in found] == in_order("pretrain")
    for one, other in zip(map(numbers, found), map(numbers, undisturbed()), strict=False):
        assert one == pytest.approx(other, rel=1e-5)
    assert (run / "model" / "model.safetensors").is_file()
    cluster.wait_until_idle(2)
    assert cluster.left_behind(BOB) == []


def test_a_job_that_gets_no_further_ends(cluster: Slurm, with_data: Callable[[str], Path]) -> None:
    home = with_data(BOB)
    asked = (*RECIPE, *UNWATCHED, "--name", "nowhere")
    job = cluster.submit(BOB, "slurm/pretrain.sh", *asked)
    for start in ("start 1, ", "start 2, "):
        cluster.wait_for(start, lambda start=start: start in cluster.output(BOB, job), 60)
        cluster.run(BOB, "scancel", "--signal=USR1", "--batch", job)
    assert cluster.wait(job)["ExitCode"] == "85:0"
    said = cluster.output(BOB, job)
    assert said.count("requeued, because it was asked to stop") == 1
    assert "not requeued: nowhere is at its start, where it was when the job was requeued before" in said
    again = " ".join(("slurm/pretrain.sh", *asked))
    assert f"to go on all the same: sbatch with the same options, {again}\n" in said
    assert "head" not in said and not (home / "runs" / "nowhere").exists()
