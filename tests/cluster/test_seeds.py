"""--seeds: a run of each seed on the same data, then mean and spread; what is done is left, what is wrong is told."""

from __future__ import annotations

import html
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from testing.here import Done, run_here
from testing.multirank import fit
from testing.suite.no_java import hide_java

import cluster.compare
import cluster.score
import cluster.train
from cluster.errors import exit_code
from cluster.evaluation.seed_scores import differing_code, rows, summarize, text_table
from cluster.recipes.commandline import parse
from cluster.report.seeds import seeds_page
from cluster.seeds import run_seeds
from shards.sources.blocks import BlocksSource


def train(tiny: Any, *more: str, main: Callable = cluster.train.main) -> Done:
    options = ["--log.wandb", "disabled", "--cluster.workers", "1", "--data.pack_workers", "1",
               "--evaluate.tokenizer", "split"]  # fmt: skip
    return run_here(main, "tiny", "--root", tiny.root, "--name", "several", *more, *options)


def without_ray(words: Sequence[str]) -> int:
    """What `cluster/train.py` does with --seeds, on ranks that are no workers of Ray's."""
    return exit_code(lambda: run_seeds(parse(words), fit))


@pytest.fixture(scope="module", autouse=True)
def without_java() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        hide_java(patch)
        yield


@pytest.fixture(scope="module")
def trained(tiny: Any) -> Path:
    done = train(tiny, "--seeds", "3,1", main=without_ray)
    assert done.returncode == 0, done.stderr
    assert "mean ± std" in done.stderr and done.stderr.count("run folder") == 2
    return tiny.root / "runs" / "several-seeds"


@pytest.mark.ranks
def test_each_seed_is_a_run_and_their_scores_are_brought_together(trained: Path, tiny: Any) -> None:
    found = json.loads((trained / "seeds.json").read_text())
    scores = {seed: json.loads((trained / f"seed_{seed}" / "scores.json").read_text()) for seed in (3, 1)}
    assert found["seeds"] == [3, 1] and [one["seed"] for one in scores.values()] == [3, 1]
    losses = [(trained / f"seed_{seed}" / "metrics.jsonl").read_text().splitlines()[0] for seed in (3, 1)]
    assert json.loads(losses[0])["loss"] != json.loads(losses[1])["loss"], "the seed decides the weights"
    for section, name in (("total", "BLEU-1"), ("changed", "CIDEr"), ("skill", "total"), ("accuracy", "unchanged")):
        values = [one[section][name] for one in scores.values()]
        assert found["figures"][section][name] == {
            "mean": pytest.approx(statistics.mean(values)),
            "std": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
            "values": dict(zip(("3", "1"), values, strict=True)),
        }
    meteor = found["figures"]["total"]["METEOR"]
    assert meteor["mean"] is None and meteor["reason"].startswith("seed 3, 1 has no value: there is no Java")
    data = [json.loads((trained / f"seed_{seed}" / "data.json").read_text()) for seed in (3, 1)]
    assert data[0] == data[1], "all have the same data and features"
    assert found["protocol"]["data"] == scores[1]["protocol"]["data"] and "code" not in found["protocol"]
    page = (trained / "seeds.html").read_text()
    assert 'href="seed_3/report.html"' in page and "Protocol" in page and "<td>CIDEr, all pairs</td>" in page


@pytest.mark.ranks
def test_a_run_is_scored_as_its_captions_are_by_anybody(trained: Path, tiny: Any, tmp_path: Path) -> None:
    run = trained / "seed_3"
    own = json.loads((run / "scores.json").read_text())
    name, limit = own["protocol"]["name"], own["protocol"]["pairs"]["limit"]
    assert name == "split" and limit
    words = (run / "predictions.jsonl", "--shards", tiny.shards, "--protocol", name, "--limit", limit)
    done = run_here(cluster.score.main, *words, "--out", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["protocol"]["name"] == name and found["hashes"] == own["hashes"]
    for part in ("total", "changed", "unchanged", "by_type", "accuracy", "accuracy_by", "oracle", "n", "tokenizer"):
        assert found[part] == own[part], part
    for part in ("scale", "data", "split", "pairs", "references", "tokenizer", "metrics", "code"):
        assert found["protocol"][part] == own["protocol"][part], part
    constant = "constant_total"
    assert found["baselines"][constant] == own["baselines"][constant] and found["skill"] == own["skill"]
    assert found["intervals"] == own["intervals"]


@pytest.mark.ranks
def test_runs_are_compared_on_one_page(trained: Path, tiny: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run_here(cluster.compare.main, trained / "seed_3", trained / "seed_1", "--out", page)
    assert done.returncode == 0, done.stderr
    scores = {seed: json.loads((trained / f"seed_{seed}" / "scores.json").read_text()) for seed in (3, 1)}
    line = next(line for line in done.stdout.splitlines() if line.startswith("CIDEr, all pairs"))
    intervals = [one["intervals"]["CIDEr"]["total"] for one in scores.values()]
    wanted = [
        (f"{one['total']['CIDEr']:.1f}", f"{low:.1f}", f"{high:.1f}")
        for one, (low, high) in zip(scores.values(), intervals, strict=True)
    ]
    assert re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", line) == wanted
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 16, "both images of each pair"
    assert "validation CIDEr" in text and "Options that differ" not in text, "but for seed and name they are one"
    assert not re.search(r"https?://|@import|url\(", text)
    for path in (trained / "seed_1" / "predictions.jsonl",):
        for said in map(json.loads, path.read_text().splitlines()):
            assert said["key"] in text and html.escape(said["caption"]) in text

    several = run_here(cluster.compare.main, trained, trained / "seed_1", "--out", page)
    assert several.returncode == 0, several.stderr
    assert (
        "several-seeds (2)  several-seeds/seed_1 (1)" in several.stdout
        and " ± " in several.stdout
        and "several-seeds" in page.read_text()
    )

    other = shutil.copytree(trained / "seed_1", tmp_path / "other")
    changed = scores[1] | {"protocol": scores[1]["protocol"] | {"tokenizer": "another"}}
    (other / "scores.json").write_text(json.dumps(changed))
    for runs, message in {
        (trained / "seed_1", other): "were scored under other protocols (tokenizer)",
        (trained / "seed_1",): "name two or more",
        (trained / "seed_1", trained / "seed_1"): "is named twice",
        (trained / "seed_1", tmp_path): "give a run folder that was evaluated",
    }.items():
        refused = run_here(cluster.compare.main, *runs)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and message in refused.stderr
    elsewhere = shutil.copytree(trained / "seed_3", tmp_path / "moved")  # its data are not beside it
    done = run_here(cluster.compare.main, elsewhere, trained / "seed_3", "--out", page, "--shards", tiny.features)
    assert done.returncode == 2 and "these are not the data that were captioned" in done.stderr
    assert run_here(cluster.compare.main, elsewhere, elsewhere.parent / "moved/../moved", "--out", page).returncode == 2


@pytest.mark.ranks
def test_given_again_it_goes_on(trained: Path, tiny: Any) -> None:
    (trained / "seed_1" / "scores.json").unlink()
    said = (trained / "seed_1" / "predictions.jsonl").read_bytes()
    written = ("config.yaml", "data.json")  # anew by each command, with the same content
    kept = [path for path in (trained / "seed_3").rglob("*") if path.is_file() and path.name not in written]
    before = {path: path.stat().st_mtime_ns for path in kept}
    summary = (trained / "seeds.json").read_text()
    done = train(tiny, "--seeds", "3,1", main=without_ray)
    assert done.returncode == 0, done.stderr
    assert "seed_3 is done" in done.stderr and "finetune is done" in done.stderr and "pretrain 1/10" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert (trained / "seeds.json").read_text() == summary
    assert (trained / "seed_1" / "predictions.jsonl").read_bytes() == said

    refused = train(tiny, "--seeds", "3,1,2", "--finetune.lr", "0.5")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--finetune.lr" in refused.stderr
    assert not (trained / "seed_2").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,0", "--seeds '0,0' has 0 more than once"),
        ("1,01", "has 1 more than once"),
        ("a", "--seeds 'a' must be whole numbers with commas between them, such as 0,1,2"),
        ("0,-1", "must be whole numbers"),
        ("0,,1", "must be whole numbers"),
        ("4", "for one run give --seed 4"),
    ],
)
def test_other_seeds_are_refused_in_one_line_with_exit_code_2(tiny: Any, text: str, said: str) -> None:
    done = train(tiny, f"--seeds={text}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tiny.root / "runs" / "several").exists()


def test_seed_and_seeds_are_not_given_together(tiny: Any) -> None:
    done = train(tiny, "--seeds", "0,1", "--seed", "2")
    assert done.returncode == 2 and "give one of the two" in done.stderr


def test_the_training_seed_draws_no_data() -> None:
    config = parse(["blocks", "--seed", "5"]).config
    assert config.seed == 5 and config.data == parse(["blocks"]).config.data and config.data.blocks.seed == 0
    assert BlocksSource(seed=config.data.blocks.seed, scenes=(1, 0, 0)).options.seed == 0
    assert parse(["blocks", "--seeds", "0,1,2"]).seeds == (0, 1, 2)


CODE = {"commit": "a" * 40, "dirty": False, "version": None, "sha256": "b" * 64}
PROTOCOL = {
    "scale": "percent", "data": {"name": "x", "manifest_sha256": "c" * 64}, "split": "test",
    "pairs": {"scored": 9, "in_split": 9, "limit": None},
    "references": {"min": 1, "mean": 1.0, "max": 1, "merge": "each"}, "tokenizer": "t", "metrics": "m",
    "decoding": {"beam": 1, "length_penalty": 0.0, "max_length": 9}, "selection": {"stage": "f", "rule": "last"},
    "code": CODE,
}  # fmt: skip


def scored(cider: float | None, code: dict = CODE) -> dict:
    metrics = {name: cider for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr")}
    metrics |= {"reasons": {"CIDEr": "no pairs"}} if cider is None else {}
    accuracy = dict.fromkeys(("changed", "unchanged", "balanced", "type", "object"), 50.0)
    return {
        "total": metrics, "changed": metrics, "unchanged": metrics, "skill": {"total": 0.5, "changed": 0.5},
        "accuracy": accuracy, "where": {"pointing_game": None, "iou": None, "n": 0}, "n": {"total": 9},
        "protocol": PROTOCOL | {"code": code},
    }  # fmt: skip


def test_what_a_seed_lacks_has_no_mean_and_other_code_is_told() -> None:
    found = summarize({0: scored(None), 1: scored(20.0, CODE | {"sha256": "d" * 64, "commit": None})})
    cider = found["figures"]["total"]["CIDEr"]
    assert cider["mean"] is None and cider["std"] is None and cider["reason"] == "seed 0 has no value: no pairs"
    assert rows(found)[0] == ["CIDEr, all pairs", "–", "–", "20.0"]
    assert rows(found)[3][1] == "0.50 ± 0.00"
    assert differing_code(found) == f"Scored by different code: seed 0 {'a' * 12}, seed 1 {'d' * 12}."
    assert differing_code(found) in text_table(found) and "different code" in seeds_page(found | {"name": "x"}, {})
    assert "different code" not in text_table(summarize({0: scored(10.0), 1: scored(20.0)}))
