"""Real sweeps of the recipe `tiny`: one killed twice and gone on with on a running Ray cluster, a population alone."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from testing.here import run_here
from testing.machines.ray_head import ROOT, ray_head

from cluster.recipes.commandline import read_config
from cluster.tracking.run_log import read_metrics
from tune import sweep
from tune.search.table import DIVERGED, FAILED, FINAL, FINISHED, REPLACED, STOPPED, Table

pytestmark = pytest.mark.ray
LIMIT_S = 480  # of a whole sweep, on a machine that does other work too
FAST = ["--log.wandb", "disabled", "--data.pack_workers", "1"]
# The first learns nothing and finishes, the second diverges, the third forgets what pre-training left (CIDEr 0) and is
# stopped at the first rung, where the first one's score is known. The first then runs again with another seed.
RATES = ["--search", "grid", "--finetune.lr", "choice:1e-6/1e30/0.01", "--finetune.steps", "20", "--repeats", "1"]
LEFT_BEHIND = """
import json, logging, ray, time
from ray._private.state import actors
ray.init(logging_level=logging.ERROR, log_to_driver=False)
def state():
    groups = [group["state"] for group in ray.util.placement_group_table().values()]
    alive = [actor["ActorClassName"] for actor in actors().values() if actor["State"] == "ALIVE"]
    # Ray Train asks for this one, once a cluster and for all runs.
    alive = [name for name in alive if name != "_AutoscalingCoordinatorActor"]
    return {"groups": groups, "alive": alive, "cpus": ray.available_resources().get("CPU")}
until = time.monotonic() + 30
while (found := state())["alive"] and time.monotonic() < until:
    time.sleep(0.5)
print(json.dumps(found))
"""


def command(home: Path, name: str, *options: str) -> list[str]:
    return [sys.executable, "tune/sweep.py", "tiny", "--root", str(home), "--name", name, *FAST, *options]


def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)


def wait_for(what: str, found: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < deadline, f"no {what} after {limit_s} s"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Those that have a sweep's folder in their command line."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]


def without_times(path: Path) -> list[dict]:
    times = ("samples_per_s", "steps_per_s", "data_wait", "memory", "seconds", "loss", "grad_norm")
    return [{key: value for key, value in record.items() if key not in times} for record in read_metrics(path)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a user of a Ray cluster of one machine with two CPUs, started as by hand."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ray_head(**token) as (address, _):
        yield os.environ | token | {"RAY_ADDRESS": address}


@dataclass
class Killed:
    """A sweep that was killed twice and then finished by the same command."""

    folder: Path
    over: dict[str, float]  # trials that were over when it was killed -> when their metrics were last written
    pretrained: float  # when those of the shared pre-training were
    left: list[psutil.Process]  # processes a while after the kill
    searched: dict[str, float]  # trials, all over, when it was killed among the further seeds -> when written
    again: subprocess.CompletedProcess


def kill_at(home: Path, cluster: dict[str, str], words: list[str], what: str, there: Callable[[], bool]) -> None:
    """Starts a command and kills it as soon as something is there."""
    with (home / "killed.txt").open("wb") as output:
        first = subprocess.Popen(words, cwd=ROOT, env=cluster, stdout=output, stderr=output)

        def begun() -> bool:
            assert first.poll() is None, (home / "killed.txt").read_text()
            return there()

        wait_for(what, begun)
        first.kill()
        first.wait(10)


def written(run_folder: Path) -> float:
    return (run_folder / "metrics.jsonl").stat().st_mtime


@pytest.fixture(scope="module")
def killed(home: Path, cluster: dict[str, str]) -> Killed:
    folder = home / "runs" / "sweeps" / "rates"

    def one_is_over_and_one_begun() -> bool:
        trials = Table(folder).trials.values()
        return any(trial.state in FINAL for trial in trials) and any(t.state not in FINAL for t in trials)

    kill_at(home, cluster, command(home, "rates", *RATES), "trial that is over", one_is_over_and_one_begun)
    table = Table(folder)
    over = {key: written(folder / "trials" / key) for key, trial in table.trials.items() if trial.state in FINAL}
    (shared,) = (folder / "pretraining").iterdir()
    pretrained = written(shared)
    deadline = time.monotonic() + 30
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill_at(home, cluster, command(home, "rates", *RATES), "repeat that has begun", lambda: bool(Table(folder).repeats))
    searched = {key: written(folder / "trials" / key) for key in Table(folder).trials}
    again = run(command(home, "rates", *RATES), cluster)
    return Killed(folder, over, pretrained, left, searched, again)


def test_the_same_command_finishes_a_killed_sweep(killed: Killed) -> None:
    assert killed.again.returncode == 0, killed.again.stderr
    trials = {trial.values["finetune.lr"]: trial for trial in Table(killed.folder).trials.values()}
    states = {rate: trial.state for rate, trial in trials.items()}
    assert states == {"1e-6": FINISHED, "1e30": DIVERGED, "0.01": STOPPED}, killed.again.stderr
    assert "not finite" in trials["1e30"].reason and trials["0.01"].step == 5 and trials["1e-6"].step == 20
    assert killed.left == [], "nothing of a killed sweep trains on"


def test_a_finished_trial_is_not_run_again(killed: Killed) -> None:
    table = Table(killed.folder)
    assert killed.over and len(table.sessions) == 3
    for key, when in killed.over.items():
        assert len(table.trials[key].starts) == 1 and written(killed.folder / "trials" / key) == when
    interrupted = [trial for trial in table.trials.values() if len(trial.starts) == 2]
    assert interrupted and all(trial.key not in killed.over for trial in interrupted)


def pretraining_of(trial: Path) -> Path:
    """The run folder of the pre-training that a trial began from."""
    return trial.parents[1] / "pretraining" / Path(read_config(trial / "config.yaml").init).name


def test_trials_share_one_pretraining(killed: Killed) -> None:
    shared: dict[int, set[Path]] = {}
    for folder in (killed.folder / "trials").iterdir():
        shared.setdefault(read_config(folder / "config.yaml").seed, set()).add(pretraining_of(folder))
        assert {record["stage"] for record in read_metrics(folder)} == {"finetune"}
        assert not (folder / "predictions.jsonl").exists() and not (folder / "evaluations").exists(), "no test split"
    ((first,), (other,)) = shared[0], shared[1]
    assert written(first) == killed.pretrained and {first, other} == set((killed.folder / "pretraining").iterdir())
    for one in (first, other):
        assert {record["stage"] for record in read_metrics(one)} == {"pretrain"}


def test_further_seeds_go_on_where_they_were_and_the_search_is_not_run_again(killed: Killed) -> None:
    folder, table = killed.folder, Table(killed.folder)
    assert "0 of 3 trials to run" in killed.again.stderr
    assert {key: written(folder / "trials" / key) for key in table.trials} == killed.searched
    ((key, repeats),) = table.repeats.items()  # the one that finished
    (repeat,) = repeats.values()
    own, other = (read_config(folder / "trials" / one / "config.yaml") for one in (key, repeat.key))
    assert (own.seed, other.seed, repeat.state, repeat.step) == (0, 1, FINISHED, 20), killed.again.stderr
    assert len(repeat.starts) == 2, "begun before the kill"
    assert own.finetune == other.finetune
    assert repeat.values == table.trials[key].values
    assert {record["stage"] for record in read_metrics(folder / "trials" / repeat.key)} == {"finetune"}
    assert "over 1 further seed (1: " in killed.again.stderr
    assert "over 1 further seed (1: " in (folder / "best.yaml").read_text()


def test_nothing_is_left_on_the_cluster(killed: Killed, cluster: dict[str, str]) -> None:
    asked = run([sys.executable, "-c", LEFT_BEHIND], cluster)
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert found["groups"] and set(found["groups"]) == {"REMOVED"}
    assert found["alive"] == [] and found["cpus"] == 2


def test_the_report_is_there_and_the_command_then_does_nothing(killed: Killed, home: Path) -> None:
    assert "finished" in (killed.folder / "report.html").read_text()
    assert len((killed.folder / "results.csv").read_text().splitlines()) == 5
    before = (killed.folder / "trials.jsonl").read_bytes()
    again = run_here(sweep.main, *command(home, "rates", *RATES)[2:])
    assert again.returncode == 0 and "0 of 3 trials to run" in again.stderr
    assert (killed.folder / "trials.jsonl").read_bytes() == before


def test_the_winner_is_a_recipe_that_repeats_its_trial(killed: Killed, home: Path, cluster: dict[str, str]) -> None:
    done = run([sys.executable, "cluster/train.py", str(killed.folder / "best.yaml"), "--root", str(home), "--stage",
                "train"], cluster)  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = home / "runs" / "rates-best"
    best = max((t for t in Table(killed.folder).trials.values() if t.state == FINISHED), key=lambda t: t.score)
    trial = killed.folder / "trials" / best.key
    assert without_times(again) == without_times(pretraining_of(trial)) + without_times(trial)
    losses = [
        [r["loss"]["caption"] for r in read_metrics(run) if r.get("task") == "finetune"] for run in (again, trial)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "though one had its pre-training from another run"


def test_a_population_takes_over_checkpoints_and_changes_values(home: Path) -> None:
    options = ["--search", "pbt", "--trials", "2", "--pretrain.steps", "0", "--finetune.steps", "80",
               "--finetune.validate_every", "20", "--finetune.log_every", "20", "--top", "1",
               "--repeats", "1"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = run(command(home, "population", *options), environment)
    assert done.returncode == 0, done.stderr
    folder = home / "runs" / "sweeps" / "population"
    table = Table(folder)
    taken = [trial for trial in table.trials.values() if trial.donor]
    assert taken, done.stderr
    for trial in taken:
        donor = table.trials[trial.donor["run"]]
        step = trial.donor["step"]
        assert step in donor.scores and trial.member != donor.member and min(trial.scores) > step
        changed = {name for name in trial.values if trial.values[name] != donor.values[name]}
        assert changed & {"finetune.weights.changed", "finetune.weights.fda", "finetune.fda_temperature"}
        own = read_config(folder / "trials" / trial.key / "config.yaml")
        assert own.finetune.fda_temperature == trial.values["finetune.fda_temperature"]
        records = read_metrics(folder / "trials" / trial.key)
        assert min(record["step"] for record in records) > step, "it went on from the checkpoint"
        before = [t for t in table.trials.values() if t.member == trial.member and t.number < trial.number]
        assert before[-1].state == REPLACED
    assert all(len(trial.starts) == 1 for trial in table.trials.values()), "with room for all, nobody is paused"
    ends = {trial.member: trial for trial in table.trials.values()}
    assert len(ends) == 2 and all(trial.state == FINISHED and trial.step == 80 for trial in ends.values())
    ((key, repeats),) = table.repeats.items()
    assert table.trials[key].score == max(trial.score for trial in ends.values())
    assert (repeats[1].state, repeats[1].step, repeats[1].values) == (FINISHED, 80, table.trials[key].values)
    assert processes_of(folder) == []


def test_why_a_trial_failed_is_kept(home: Path, cluster: dict[str, str]) -> None:
    options = ["--search", "random", "--trials", "1", "--pretrain.steps", "0", "--finetune.validate_limit", "1"]
    done = run(command(home, "unscored", *options), cluster)
    (trial,) = Table(home / "runs" / "sweeps" / "unscored").trials.values()
    assert trial.state == FAILED and "it needs two pairs or more" in trial.reason, done.stderr
    assert "it needs two pairs or more" in done.stderr
