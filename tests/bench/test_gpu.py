"""bench.gpu on a CPU: plain equals ours, the time is shared out, parts that fail are reported, the page is made."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.gpu.__main__ import main  # noqa: E402
from bench.gpu.jobs import Done  # noqa: E402
from bench.gpu.page import fill, write  # noqa: E402
from bench.gpu.parts import claim, runs, synthetic, training  # noqa: E402
from bench.gpu.parts.ours import on_device, prepared  # noqa: E402
from bench.gpu.parts.plain import PlainLoop, PlainModel  # noqa: E402
from bench.gpu.plan import PARTS, Part, share  # noqa: E402
from bench.gpu.record import Record, read_json, write_json  # noqa: E402
from cluster.config.options import to_yaml  # noqa: E402
from cluster.training.checkpoint import COMMIT, Commit  # noqa: E402
from idc.losses import objectives  # noqa: E402
from idc.reference.parity import to_reference  # noqa: E402
from shards.errors import DataError  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda", "classify", "finetune"])
def test_plain_is_the_same_computation_as_ours(task: str, mask_padding: bool) -> None:
    network = synthetic.paper(small=True)
    model = dataclasses.replace(network.model, mask_padding=mask_padding, cross_modal_blocks=2)
    network = dataclasses.replace(network, model=model)
    ours = network.build().eval()
    with torch.no_grad():
        for weight in ours.parameters():  # away from the start, where many are 0 or 1
            weight.add_(0.1 * torch.randn_like(weight))
    plain = PlainModel(model).eval()
    assert not plain.load_state_dict(to_reference(ours)).missing_keys
    table = synthetic.feature_table(network, "cpu")
    batch = synthetic.batches(network, task, 1)[0]
    images = {"before": table[batch.rows[:, 0]].float(), "after": table[batch.rows[:, 1]].float()}
    ready = on_device(prepared(network, batch, "cpu"), table)
    losses = objectives.losses(ours, ready.model_task, ready.micro_batches[0])
    found = plain(task, images | batch.text)
    assert found.keys() == losses.keys()
    for name, loss in losses.items():
        expected = loss.sum if task == "finetune" else loss.mean
        assert found[name].item() == pytest.approx(expected.item(), rel=1e-5), name
    sum(found.values()).backward()
    sum(loss.sum if task == "finetune" else loss.mean for loss in losses.values()).backward()
    by_name = dict(plain.named_parameters())
    norm = torch.stack([w.grad.norm() for w in ours.parameters() if w.grad is not None]).norm().item()
    there = torch.stack([w.grad.norm() for w in by_name.values() if w.grad is not None]).norm().item()
    assert there == pytest.approx(norm, rel=1e-4)


def test_the_plain_loop_learns() -> None:
    network = synthetic.paper(small=True)
    table = synthetic.feature_table(network, "cpu")
    batch = synthetic.batches(network, "mlm", 1)[0]
    host = {"before": table[batch.rows[:, 0]].float(), "after": table[batch.rows[:, 1]].float()} | batch.text
    torch.manual_seed(0)
    loop = PlainLoop(PlainModel(network.model), "cpu", lr=1e-2)
    losses = [loop.step("mlm", host) for _ in range(12)]
    assert losses[-1] < losses[0]


# ---- the command


def test_time_is_shared_by_worth_and_what_does_not_fit_is_left_out() -> None:
    assert list(share(PARTS, 177)) == ["machine", "ceilings", "correctness", "speed"]
    assert list(share(PARTS, 477)) == ["machine", "ceilings", "correctness", "speed", "training"]
    found = share(PARTS, 717)
    assert list(found) == list(PARTS) and sum(found.values()) == pytest.approx(717)
    assert all(PARTS[name].least <= seconds <= PARTS[name].most for name, seconds in found.items())
    assert share({"claim": PARTS["claim"]}, 400) == {"claim": 400}
    assert share(PARTS, 1) == {}


def command(*arguments: object) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "bench.gpu", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_whole_command_on_a_cpu(tmp_path: Path) -> None:
    done = command(
        "--out", tmp_path / "out", "--work", tmp_path / "work", "--device", "cpu", "--small", "--minutes", "0.75",
        "--skip", "claim",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    states = {name: found["status"] for name, found in summary["parts"].items()}
    assert states["claim"] == "skipped"
    assert states["training"] == "not run: time" and "training: not run: time" in done.stdout
    # How far the others come depends on what else the machine does; nothing fails.
    assert set(states.values()) <= {"done", "stopped: time", "not run: time", "skipped"}, done.stdout
    assert states["machine"] == "done" and not summary["failed"], done.stdout
    correctness = read_json(tmp_path / "out" / "correctness.json")
    if states["correctness"] == "done":
        assert correctness["results"]["checks"]["reference numbers"]["passed"]
        assert correctness["not_run"]["killed and resumed"] == "time"
    if states["speed"] == "done":
        assert read_json(tmp_path / "out" / "speed.json")["results"]["paper"]["ms"]["mlm"] > 0
    with pytest.raises(DataError, match="not of a GPU"):
        write(tmp_path / "out", tmp_path)


@pytest.mark.slow
def test_a_part_that_crashes_or_hangs_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "crashing.py").write_text(
        "def run(record):\n    record.put('found', 1)\n    raise RuntimeError('no luck')\n"
    )
    (tmp_path / "hanging.py").write_text(
        "import time\ndef run(record):\n    print('so far')\n    record.put('found', 2)\n    time.sleep(600)\n"
    )
    (tmp_path / "fine.py").write_text("def run(record):\n    record.check('sum', 1 + 1 == 3, 'it is not')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setattr("bench.gpu.__main__.GRACE_S", 0.0)
    parts = {
        "crashing": Part("crashing", 1, 1), "hanging": Part("hanging", 1, 1, most=10), "fine": Part("fine", 1, 1),
        "late": Part("fine", 1, 500),
    }  # fmt: skip
    out = tmp_path / "out"
    arguments = ["--out", out, "--work", tmp_path / "work", "--device", "cpu", "--minutes", "1"]
    assert main([str(word) for word in arguments], parts) == 0
    found = {name: read_json(out / f"{name}.json") for name in parts}
    assert found["crashing"]["status"] == "failed: exit code 1" and found["crashing"]["results"] == {"found": 1}
    assert found["crashing"]["tail"][-1] == "RuntimeError: no luck"
    assert found["hanging"]["status"] == "stopped: time" and found["hanging"]["results"] == {"found": 2}
    assert "so far" in found["hanging"]["tail"] and not found["late"]
    assert found["fine"]["status"] == "done"
    summary = read_json(out / "summary.json")
    assert summary["parts"]["late"]["status"] == "not run: time"
    assert summary["failed"] == ["fine: sum: it is not"] and summary["checks"] == 1
    assert "FAIL sum" in capfd.readouterr().out


@pytest.mark.slow
def test_a_part_that_is_not_there_is_refused() -> None:
    done = command("--out", "x", "--parts", "ceilngs")
    assert done.returncode == 2 and "ceilngs" in done.stderr and "ceilings" in done.stderr


# ---- runs of the project's own commands


def record_of(part: str, folder: Path, small: bool = True, seconds: float = 1000) -> Record:
    return Record(part, folder, folder / "work", "cuda", small, seconds)


@pytest.mark.slow
def test_training_begins_anew_beside_what_an_earlier_command_left(tmp_path: Path) -> None:
    """Scenes, rates, the main job and its scores; a run folder of the same name on another schedule is in the way."""
    record = Record("training", tmp_path, tmp_path / "work", "cpu", True, 1000)
    config = runs.configuration("blocks_full", training.options_of(record) | {"regions.warmup_steps": 7})
    for name in (training.NAME, f"rate-{training.RECIPE}"):
        folder = record.work / "runs" / name
        begun = folder / "checkpoints" / "regions" / "step_00000001"
        begun.mkdir(parents=True)
        (begun / COMMIT).write_text(json.dumps(dataclasses.asdict(Commit("regions", 1, 1, 0))))
        (folder / "config.yaml").write_text(to_yaml(config))
    training.run(record)
    assert "checks" not in record.results and not record.not_run
    assert record.results["scores"]["pairs"] == 8 and set(record.results["steps"].values()) == {4}


@pytest.mark.parametrize("small", [True, False])
def test_all_runs_have_possible_options(tmp_path: Path, small: bool) -> None:
    options = training.options_of(record_of("training", tmp_path, small))
    config = runs.configuration("blocks_full", options)
    scaled = training.schedule(config, {"regions": 0.1, "pretrain": 0.1, "finetune": 0.2}, 100)
    assert runs.configuration("blocks_full", options | scaled).finetune.steps < config.finetune.steps
    assert training.schedule(config, {"finetune": 1e-9}, 100)["finetune.steps"] == config.finetune.steps
    options = claim.options_of(record_of("claim", tmp_path, small))
    for arm in claim.ARMS.values():
        pretraining, finetuning = claim.split(arm, {"steps": 400})
        assert pretraining + finetuning == 400
        if arm.ratios:
            found = runs.configuration("blocks_paper", options | claim.pretraining_options(arm, pretraining, small))
            assert found.pretraining["pretrain"].steps == pretraining
        found = runs.configuration("blocks_paper", options | claim.finetuning_options(finetuning, "3e-4"))
        assert found.stage("pretrain").steps == 0 and found.finetune.lr == 3e-4


def test_the_claim_is_gone_on_with_where_it_was_stopped(tmp_path: Path, monkeypatch) -> None:
    made: list[str] = []
    limit = 4  # runs that the first command has time for

    def alone(record: Record, recipe: str, options: dict, seconds: float) -> Done:
        if len(made) >= limit:
            raise runs.OutOfTimeError(options["name"])
        made.append(options["name"])
        value = 50.0 if options.get("finetune.lr") == "3e-4" else 40.0
        scores = {half: {"CIDEr": value, "BLEU-4": 1, "ROUGE_L": 1} for half in ("total", "changed", "unchanged")}
        scores |= {"skill": {"changed": 0.5}, "accuracy": {"object": 9}, "n": {"total": 6}}
        run = tmp_path / "work" / "runs" / options["name"]
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "scores.json", scores)
        line = {"stage": "finetune", "step": 1, "validation": {"CIDEr": value}}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return Done(0, 2.0, "")

    monkeypatch.setattr(runs, "alone", alone)
    monkeypatch.setattr(
        runs, "prepared", lambda *_: ({"data.shards": "data/x"}, {"scenes": 6, "counts": [6, 3, 4], "seconds": 1.0})
    )
    monkeypatch.setattr(runs, "step_seconds", lambda *_: ({"pretrain": 0.01, "finetune": 0.01}, 2.0))
    claim.run(record_of("claim", tmp_path))
    first = read_json(tmp_path / "claim.json")["results"]["runs"]
    assert first["none-0"]["chosen"] == "3e-4" and "chosen" not in first["mlm-0"] and len(first["mlm-0"]["rates"]) == 1
    limit = 100
    claim.run(record_of("claim", tmp_path))
    found = read_json(tmp_path / "claim.json")["results"]
    assert [key for key, one in found["runs"].items() if "chosen" in one] == [f"{name}-0" for name in claim.ARMS]
    assert sum(name.endswith("none-0/lr-1e-4") for name in made) == 1
    assert all(sum(one["steps"]) == found["plan"]["steps"] for one in found["runs"].values())


# ---- the page


def sample() -> dict[str, dict]:
    """Files as the parts leave them."""
    on = {"card": "H100", "torch": "2.11", "date": "2026-11-27", "commit": "abc"}
    ms = dict.fromkeys(("mlm", "mvcl", "fda", "classify", "finetune"), 10.0)
    paper = {"batch": dict.fromkeys(ms, 200), "ms": ms, "share_of_bf16": dict.fromkeys(ms, 0.2),
             "tflops": dict.fromkeys(ms, 150.0), "peak_mib": dict.fromkeys(ms, 9000)}  # fmt: skip
    scores = {"CIDEr": {"total": 150.0, "changed": 160.0, "unchanged": 120.0}, "skill": {"changed": 0.91},
              "accuracy": {"changed": 99.0, "unchanged": 98.0, "type": 97.5, "object": 97.25}}  # fmt: skip
    chosen = {"label": "", "steps": [200, 200], "chosen": "3e-4", "rates": {"3e-4": scores}}
    results = {
        "machine": {"card": "H100", "card_memory_gib": 79.6, "capability": "9.0", "driver": "580", "cuda": "13.0",
                    "torch": "2.11", "python": "3.12", "cores": 16, "memory_gib": 128.0, "date": "2026-11-27",
                    "commit": "abc"},
        "ceilings": {"matrix_products": {"bf16": {"tflops": 750.0, "size": 8192}}, "copies": {"device": 2800.0}},
        "correctness": {"checks": {"reference numbers": {"passed": True, "text": "717 quantities"},
                                   "ZeRO 3 as ZeRO 0": {"passed": False, "text": "worst of 20 1.0e-02"}}},
        "speed": {"paper": paper, "blocks_full": paper, "plain": {"ms": dict.fromkeys(ms, 90.0)},
                  "mix": {"ms": {"paper": 10.0, "plain": 90.0}}, "captions": {"greedy, 256 at once": 900.0}},
        "training": {"data": {"scenes": 20000, "seconds": 90.0}, "steps": {"finetune": 900}, "minutes": 7.5,
                     "scores": scores},
        "claim": {"plan": {"steps": 400, "scenes": 20000}, "runs": {"all-0": chosen, "all-1": chosen}},
    }  # fmt: skip
    return {
        name: {"part": name, "device": "cuda", "small": False, "status": "done", "on": on, "results": found}
        for name, found in results.items()
    }


def checkout(folder: Path) -> Path:
    (folder / "docs").mkdir()
    (folder / "docs" / "gpu.md").write_text(fill((ROOT / "docs" / "gpu.md").read_text(), {}))
    return folder


def test_the_page_is_what_the_results_in_the_repository_give() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    kept = {name: read_json(ROOT / "bench" / "results" / "gpu" / f"{name}.json") for name in PARTS}
    assert fill(page, kept) == page, "run python -m bench.gpu --write bench/results/gpu"


def test_an_empty_folder_gives_a_page_of_what_is_not_measured(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    (tmp_path / "none").mkdir()
    write(tmp_path / "none", place)
    page = (place / "docs" / "gpu.md").read_text()
    assert page.count("not measured yet") > 60 and "reached" not in page and "missed" not in page
    assert not (place / "bench").exists()


def test_results_come_into_the_page_and_the_repository(tmp_path: Path) -> None:
    place, out = checkout(tmp_path), tmp_path / "out"
    out.mkdir()
    for name, found in sample().items():
        write_json(out / f"{name}.json", found)
    write(out, place)
    page = (place / "docs" / "gpu.md").read_text()
    for text in (
        "H100, torch 2.11, 2026-11-27, commit abc.", "| matrix product, bf16 | 750.0 TFLOP/s, 8192 x 8192 |",
        "| ZeRO 3 as ZeRO 0 | **no** | worst of 20 1.0e-02 |",
        "| mlm | 10.00 | not measured yet | 90.00 | 9.0 | 20.0 % | 9,000 |",
        "| times as fast as plain | at least 8 | 9.0 | reached |",
        "| best share of the bf16 rate in `blocks_full` | at least 0.4 | 0.20 | **missed** |",
        "| skill of changed pairs | at least 1 | 0.91 | **missed** |",
        "| right object, % | at least 97 | 97.2 | reached |",
        "| MLM, MVCL, FDA | 200 + 200 | 3e-4, 3e-4 | 150.0 ± 0.0 |",
    ):  # fmt: skip
        assert text in page, text
    assert read_json(place / "bench" / "results" / "gpu" / "claim.json")["results"]["plan"]["steps"] == 400
    write(place / "bench" / "results" / "gpu", place)
    assert (place / "docs" / "gpu.md").read_text() == page, "made again from what is kept"


@pytest.mark.parametrize("network", [synthetic.paper(small=True), synthetic.full(small=True)], ids=lambda one: one.name)
def test_features_as_they_are_cached_serve_every_task_in_bf16(network) -> None:
    """float16 under autocast to bfloat16, which is how a GPU that holds the features trains."""
    model, table = network.build(), synthetic.feature_table(network, "cpu")
    for task in network.tasks:
        batch = on_device(prepared(network, synthetic.batches(network, task, 1)[0], "cpu"), table)
        with torch.autocast("cpu", torch.bfloat16):
            losses = objectives.losses(model, batch.model_task, batch.micro_batches[0])
        assert all(torch.isfinite(loss.sum) for loss in losses.values()), task
