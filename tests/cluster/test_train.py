"""The whole job on two Ray workers: from data to scores, killed and resumed, refused where it must be."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import psutil
import pytest
from testing.here import Done, run_here
from testing.suite.no_java import hide_java, without_java

import cluster.train
from cluster import checkpoints
from cluster.errors import ConfigError
from cluster.recipes.commandline import parse
from cluster.tracking.run_log import read_metrics, read_without_times
from cluster.training.checkpoint import find, load_weights
from idc.captioning.model_folder import load

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300
# Long enough to be killed in the middle of fine-tuning, which does 25 steps a second.
STEPS = 160
OPTIONS = ["--log.wandb", "disabled", "--data.pack_workers", "1", "--evaluate.tokenizer", "split",
           "--pretrain.steps", "12", "--finetune.steps", str(STEPS), "--finetune.validate_every", str(STEPS // 2),
           "--finetune.checkpoint_every", "7"]  # fmt: skip


def command(tiny: Any, name: str, *more: str) -> list[str]:
    return [sys.executable, "cluster/train.py", "tiny", "--name", name, "--root", str(tiny.root), *OPTIONS, *more]


def train(tiny: Any, name: str, *more: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        command(tiny, name, *more), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )


def refused(tiny: Any, name: str, *more: str) -> Done:
    """A command that ends before anything is started, in this process."""
    return run_here(cluster.train.main, *command(tiny, name, *more)[2:])


def log_of(run: Path, rank: int) -> str:
    return (run / "logs" / f"rank_{rank}.log").read_text()


def process_of(run: Path, rank: int) -> int:
    """The process that is this rank now, as the newest head line of its log says."""
    return int(re.findall(rf"^--- .* rank {rank} on .*, process (\d+),", log_of(run, rank), re.MULTILINE)[-1])


def family_of(pid: int) -> list[tuple[psutil.Process, str]]:
    """All processes that a process has started, and theirs, with their names."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((child, child.name()))
    return found


@pytest.fixture(scope="module")
def finished(tiny: Any) -> tuple[Path, subprocess.CompletedProcess]:
    done = train(tiny, "undisturbed")
    assert done.returncode == 0, done.stderr
    return tiny.root / "runs" / "undisturbed", done


def test_a_run_leaves_everything_that_is_read_later(finished: tuple) -> None:
    run, done = finished
    records = read_metrics(run)
    steps = [(record["stage"], record["step"]) for record in records if "task" in record]
    assert steps == [("pretrain", step) for step in range(1, 13)] + [("finetune", step) for step in range(1, STEPS + 1)]
    for record in records:
        if "task" in record:
            assert record["loss"] and all(value > 0 for value in record["loss"].values())
            assert record.keys() >= {"samples", "lr", "grad_norm", "samples_per_s", "data_wait", "memory"}
    assert [record["step"] for record in records if "validation" in record] == [STEPS // 2, STEPS]
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [prediction["index"] for prediction in predictions] == list(range(8)), "each sample once"
    scores = json.loads((run / "scores.json").read_text())
    assert scores["n"]["total"] == 8 and scores["checkpoint"].startswith("checkpoints/finetune/step_")
    assert scores["protocol"]["pairs"]["scored"] == 8 and scores["protocol"]["selection"]["rule"] == "best"
    assert len(scores["intervals"]["accuracy"]["changed"]) == 2
    assert 0 < scores["goodput"] < 1, "most of so short a run is its start"
    report = (run / "report.html").read_text()
    assert "Protocol" in report and "of the time from the first command to the last step" in report
    for name in ("config.yaml", "provenance.json", "report.html", "model/config.json", "model/model.safetensors"):
        assert (run / name).is_file(), name
    assert "skill" in done.stderr and "Traceback" not in done.stderr and "(pid=" not in done.stderr + done.stdout


def test_the_exported_model_is_the_best_checkpoint(finished: tuple) -> None:
    run, _ = finished
    scores = json.loads((run / "scores.json").read_text())
    best = max(
        (c for c in find(run / "checkpoints" / "finetune") if c.commit.validation),
        key=lambda c: c.commit.validation["CIDEr"],
    )
    assert scores["checkpoint"] == str(best.folder.relative_to(run))
    exported, saved = load_weights(run / "model" / "model.safetensors"), load_weights(best.weights)
    assert exported.keys() == saved.keys() and all((exported[name] == saved[name]).all() for name in saved)


def test_the_notebook_shows_a_run(finished: tuple, tiny: Any, tmp_path: Path, monkeypatch) -> None:
    """Its cells in a kernel of their own. What its first cell would train is there already."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(finished[0])
    (tmp_path / "data").symlink_to(tiny.root / "data")
    monkeypatch.setenv("IDC_HOME", str(tmp_path))
    book = nbformat.read(ROOT / "docs" / "notebooks" / "first_model.ipynb", as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "kept without what it once showed"
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    (trained,) = re.findall(r'"-m", "cluster.train", (.*)\]', cells[0].source)
    asked = parse(ast.literal_eval(f"[{trained.replace('str(HOME)', repr(str(tmp_path)))}]"))
    assert asked.evaluates and asked.config.name == "tiny" and asked.config.root == str(tmp_path)
    shown = [[*output.get("data", {}), output.get("text", "")] for cell in cells for output in cell.outputs]
    assert sum("image/png" in each for each in shown) == 2, "an image, and the map of a caption"
    said = "".join(each[-1] for each in shown)
    assert "pairs; of the first people say:" in said and "P(changed) 0." in said and said.count(", and people: ") == 4
    assert set(re.findall(r"'(\w+)':", cells[-1].outputs[-1]["data"]["text/plain"])) == {"CIDEr", "skill"}


def test_whatever_strikes_it_the_losses_are_equal(finished: tuple, tiny: Any, tmp_path: Path) -> None:
    """One run: kill -9 of a worker, SIGSTOP of the other, Ctrl-C and SIGTERM, kill -9 of the next driver."""
    undisturbed, run, said = finished[0], tiny.root / "runs" / "disturbed", tiny.root / "disturbed.txt"
    words = command(tiny, "disturbed", "--cluster.timeout_s", "15")

    def restarts() -> list[dict]:
        path = run / "restarts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def reached() -> int:
        return max((record["step"] for record in read_metrics(run) if record["stage"] == "finetune"), default=0)

    def wait(driver: subprocess.Popen, restarted: int, step: int) -> None:
        deadline = time.monotonic() + LIMIT_S
        while len(restarts()) < restarted or reached() < step:
            assert driver.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)

    with said.open("wb") as output:
        driver = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        wait(driver, 0, 8)
        os.kill(process_of(run, 1), signal.SIGKILL)
        wait(driver, 1, 30)
        frozen, since = process_of(run, 0), time.monotonic()
        os.kill(frozen, signal.SIGSTOP)
        wait(driver, 2, 30)
        assert time.monotonic() - since < 35, "found within the limit of 15 s"
        wait(driver, 2, 50)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does, of Ray's processes too
        driver.send_signal(signal.SIGTERM)
        sent, at = time.monotonic(), reached()
        assert driver.wait(60) == 85, said.read_text()
        assert time.monotonic() - sent < 30
    killed, hung = restarts()
    assert re.match(r"worker 1 on \S+, process \d+, died at finetune step \d+: goes on from finetune step \d+ in 1 s, "
                    r"restart 1 of 3$", killed["line"])  # fmt: skip
    assert re.match(r"worker 0 on \S+, process \d+, does not answer for \d+ s at finetune step \d+: goes on from "
                    r"finetune step \d+ in 1 s, restart 2 of 3$", hung["line"])  # fmt: skip
    assert hung["reached"][0] == "finetune" and 30 <= hung["reached"][1] < STEPS
    assert not psutil.pid_exists(frozen), "the worker that hung was killed"
    text = said.read_text()
    assert killed["line"] in text and hung["line"] in text and "Traceback" not in text
    how = f"stopping with a checkpoint; Ctrl-C again ends at once. To go on: .*{re.escape(shlex.join(words[1:]))}$"
    assert re.search(how, text, re.MULTILINE)
    step = int(re.search(r"^stopped at finetune step (\d+) as asked, checkpoint committed; the same command goes on$",
                         text, re.MULTILINE)[1])  # fmt: skip
    assert step == reached() == find(run / "checkpoints" / "finetune")[-1].commit.step < STEPS - 10
    assert step - at <= 60, "a second or so after the ask"
    # What every rank said in every attempt is there, and where the living one stood while the other hung.
    assert [log_of(run, rank).count(f" rank {rank} on ") for rank in (0, 1)] == [3, 3]
    stacks = log_of(run, 1).partition("--- where all threads of this process stand, because worker 0 on ")[2]
    # In whichever collective of a step the other did not come to.
    assert "stage.py" in stacks and ("train_step" in stacks or "stopping.py" in stacks)

    with said.open("wb") as output:
        driver = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=output)
        deadline, family = time.monotonic() + LIMIT_S, []
        while reached() < step + 5:
            assert driver.poll() is None and time.monotonic() < deadline, said.read_text()
            family = family_of(driver.pid)
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
    # Two idle agents of Ray's notice after a minute that their node is gone; all others end within seconds.
    others = [process for process, name in family if not name.endswith("Agent")]
    assert any("RayTrainWorker" in name for _, name in family)
    unused = re.compile("Controller|Synchronization|Dashboard|Coordinator")
    assert not [name for _, name in family if unused.search(name)], "a process each"
    _, alive = psutil.wait_procs(others, timeout=60)
    assert not alive, f"left behind: {alive}"
    assert reached() < STEPS, "killed too late to say anything"

    again = train(tiny, "disturbed", **without_java(tmp_path))  # no METEOR: it takes a core 7 s
    assert again.returncode == 0, again.stderr
    assert "pretrain is done" in again.stderr
    assert read_without_times(run) == read_without_times(undisturbed), (
        "the log is that of a run that was never disturbed"
    )
    ends = [find(folder / "checkpoints" / "finetune")[-1].weights.read_bytes() for folder in (run, undisturbed)]
    assert ends[0] == ends[1], "and so are the weights, bit by bit"
    assert (run / "predictions.jsonl").read_bytes() == (undisturbed / "predictions.jsonl").read_bytes()


def test_its_checkpoints_are_listed_checked_and_exported(finished: tuple, tmp_path: Path, capsys: Any) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")

    def ask(*words: str | Path) -> tuple[int, str]:
        return checkpoints.main([str(word) for word in words]), capsys.readouterr().out

    code, listed = ask("ls", run)
    assert code == 0 and listed.count("kept as best") == 1
    newest = f"step_00000{STEPS}: {STEPS} of {STEPS} steps; {8 * STEPS} samples; 2 workers at ZeRO 1"
    assert f"checkpoints/finetune/{newest}" in listed
    newest = run / "checkpoints" / "finetune" / f"step_00000{STEPS}"
    code, verified = ask("verify", run)
    assert code == 0 and f"{newest}: whole" in verified

    assert ask("export", run, "--step", str(STEPS), "--out", tmp_path / "model")[0] == 0
    assert load(tmp_path / "model").about["step"] == STEPS
    card = (tmp_path / "model" / "README.md").read_text()
    scored = json.loads((run / "scores.json").read_text())["checkpoint"].endswith(newest.name)
    assert f"- stage finetune, step {STEPS}, seed " in card and ("| all pairs | " in card) == scored
    with pytest.raises(ConfigError, match="is there already"):
        ask("export", run, "--out", tmp_path / "model")
    with pytest.raises(ConfigError, match="has no checkpoint of finetune at step 7; it has"):
        ask("export", run, "--step", "7", "--out", tmp_path / "other")

    damaged = newest / "optimizer-00001-of-00002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    code, verified = ask("verify", run)
    assert code == 1 and f"{newest}: {damaged.name} is damaged" in verified


def test_a_begun_run_refuses_another_configuration(finished: tuple, tiny: Any) -> None:
    done = refused(tiny, "undisturbed", "--finetune.lr", "0.1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--finetune.lr 0.001 and this command has 0.1" in done.stderr


def test_evaluation_of_a_run_that_is_not_there(tiny: Any) -> None:
    done = refused(tiny, "nobody", "--stage", "evaluate")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no trained model" in done.stderr


def test_a_missing_shard_folder_is_named_with_the_command_that_makes_it(tiny: Any) -> None:
    done = refused(tiny, "nobody", "--data.shards", "no/such", "--data.source", "none")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--data.shards" in done.stderr and "python -m shards.pack" in done.stderr


def test_a_machine_without_java_is_told_so_before_anything_is_made(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_java(monkeypatch)
    words = ("--data.shards", "no/such", "--data.source", "none", "--evaluate.tokenizer", "ptb")
    done = refused(tiny, "nobody", *words)
    said = done.stderr.splitlines()
    assert done.returncode == 2 and len(said) == 2 and "no such folder" in said[1], done.stderr
    assert said[0].startswith("captions will have no METEOR, and words in place of ptb as the tokenizer: there is no")
