"""bench/ablation.py: a table from data to page, in a scratch checkout; a run that is over is not run again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.ablation import main  # noqa: E402
from bench.ablations.page import arms, write  # noqa: E402
from bench.ablations.tables import SCALES, TABLES  # noqa: E402
from cluster.config.options import differences  # noqa: E402
from cluster.config.validation import validate  # noqa: E402
from cluster.errors import ConfigError  # noqa: E402
from shards.errors import DataError  # noqa: E402

SIZES = (
    "--data.blocks.scenes 4,2,3 --data.blocks.size 64,48 --data.blocks.supersample 1 --data.blocks.class_photos 1 "
    "--backbone.size 48,64 --model.d_model 32 --model.heads 2 --model.d_ff 64 --model.cell_size 32 "
    "--regions.steps 2 --pretrain.steps 2 --finetune.steps 4 --finetune.validate_every 2 --evaluate.tokenizer split "
    "--evaluate.limit 6 --data.pack_workers 1 --cluster.threads 1 --regions.global_batch_size 8 "
    "--pretrain.global_batch_size 16 --finetune.global_batch_size 8"
).split()


ONE_ARM = ("pretraining", "--seeds", "3", "--only", "mlm", *SIZES)


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, checkout / "bench" / "ablation.py", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The bench and its page, to be written to, beside the code."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("cluster", "idc", "shards", "tune"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
    (folder / "docs").mkdir()
    page = (ROOT / "docs" / "results.md").read_text()
    (folder / "docs" / "results.md").write_text(re.sub(r"( -->\n)[^<]*?(<!-- end -->)", r"\1\2", page))
    return folder


@pytest.fixture(scope="module")
def trained(checkout) -> Path:
    """The checkout after one arm of one table, which is written into the page."""
    for arguments in (ONE_ARM, ("--write",)):
        done = run(checkout, *arguments)
        assert done.returncode == 0, done.stderr
    return checkout


@pytest.mark.slow
def test_a_table_is_trained_once_and_written(trained):
    runs = trained / "runs" / "ablation" / "small"
    stages = [json.loads(line)["stage"] for line in (runs / "pretraining/mlm-3/metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["pretrain", "finetune"], "the region finder comes from another run"
    assert (runs / "shared" / "regions-3" / "checkpoints" / "regions" / "step_00000002" / "COMMIT").is_file()

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    again = run(trained, *ONE_ARM)
    assert again.returncode == 0 and again.stderr == "pretraining/mlm-3 is done\n"
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}

    scores = json.loads((runs / "pretraining" / "mlm-3" / "scores.json").read_text())
    results = json.loads((trained / "bench" / "results" / "ablation.json").read_text())
    found = results["small"]["pretraining"]["mlm-3"]
    assert found["CIDEr"]["total"] == round(scores["total"]["CIDEr"], 1)
    assert found["steps"] == {"pretrain": 2, "finetune": 4} and found["shared"]["steps"] == {"regions": 2}
    page = (trained / "docs" / "results.md").read_text()
    assert re.search(rf"^\| MLM \| {found['CIDEr']['total']:.1f} \|", page, re.M)
    assert re.search(r"^\| MLM \| \(2\) \+ 2 \+ 4 \| \d+ \| \d+ \| 3 \|$", page, re.M)
    assert page.count("\n| MLM |") == 4 and "<!-- negatives -->\n<!-- end -->" in page


@pytest.mark.slow
def test_the_page_is_made_from_results_alone(trained, tmp_path):
    """Means and deviations of figures that are not in any run folder."""
    copy = tmp_path / "checkout"
    shutil.copytree(trained, copy, symlinks=True, ignore=shutil.ignore_patterns("runs", "data"))
    path = copy / "bench" / "results" / "ablation.json"
    results = json.loads(path.read_text())
    one = results["small"]["pretraining"]["mlm-3"]
    other = one | {"CIDEr": one["CIDEr"] | {"total": one["CIDEr"]["total"] + 2}}
    results["small"]["pretraining"]["mlm-4"] = other
    changed = one["CIDEr"]["changed"]
    for seed, less in (("3", 4.0), ("4", 10.0)):  # 7 less on average, the mean of two that lie 6 apart is known to 3
        results["small"]["pretraining"][f"longer-{seed}"] = one | {"CIDEr": one["CIDEr"] | {"changed": changed - less}}
    slow = one | {"seconds": 60.0, "curve": [[20.0, 10.0, 5.0], [40.0, 20.0, None], [60.0, 10.0, 2.0]]}
    fast = one | {"curve": [[1.5, 10.0, 4.0], [3.0, 20.0, 5.5]]}
    faster = one | {"curve": [[1.5, 10.0, 5.5], [3.0, 20.0, 8.0]]}
    results["small"]["reference"] = {
        **{f"paper-{seed}": slow for seed in (0, 1, 2)}, "ours-0": fast, "ours-1": faster, "ours_samples-2": slow,
    }  # fmt: skip
    path.write_text(json.dumps(results))
    assert run(copy, "--write").returncode == 0
    page = (copy / "docs" / "results.md").read_text()
    assert f"| {one['CIDEr']['total'] + 1:.1f} ± 1.4 |" in page and "| +7.0 ± 3.0 |\n" in page and "| 3, 4 |\n" in page
    assert "ever had:\n\n- our recipe, with labelled and captioned photos: after 3.8 ± 1.8 % of its time\n- our" in page
    assert "our recipe, as many samples: never with seed 2\n" in page
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", page)
    assert (copy / "docs" / picture).read_bytes().startswith(b"\x89PNG")
    assert json.loads(path.read_text()) == results


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_every_arm_is_possible_and_the_page_has_its_command(table, scale):
    found = arms(scale, table)
    assert len({arm.name for arm in found}) == len({arm.label for arm in found}) == len(found)
    for arm in [*found, *(arm.after for arm in found if arm.after)]:
        validate(arm.config)
    page = (ROOT / "docs" / "results.md").read_text()
    assert f"\npython bench/ablation.py {table}" in page and f"\n<!-- {table} -->\n" in page


def test_arms_differ_in_what_they_are_about_alone():
    by_name = {arm.name: arm.config for arm in arms("small", "negatives")}
    finetunes = [config.finetune for name, config in by_name.items() if name != "none"]
    assert len({one.negatives.kinds for one in finetunes}) == len(finetunes) == 7
    assert {one.negatives.count for one in finetunes} == {3} and {one.weights["fda"] for one in finetunes} == {0.1}
    assert by_name["none"].finetune.weights["fda"] == 0 and "fda" not in by_name["none"].stage("pretrain").ratios


@pytest.mark.parametrize("scale", SCALES)
def test_networks_are_compared_with_all_else_equal(scale):
    paper, ours, longer = (arm.config for arm in arms(scale, "architecture"))
    assert [name for name, *_ in differences(paper, ours)] == ["model.architecture"]
    assert (paper.model.architecture, ours.model.architecture) == ("paper", "idc")
    lengths = {"steps", "warmup_steps", "checkpoint_every", "validate_every"}
    assert {name.rpartition(".")[2] for name, *_ in differences(ours, longer)} <= lengths
    for name in ours.stages:
        assert not ours.stage(name).steps or not {"class_labels", "photo_labels", "pair_labels"} & {
            task for task, ratio in ours.stage(name).ratios.items() if ratio
        }, "tasks of which the published network has none"


def test_recipes_beside_each_other_are_told_to_differ_in_more_than_the_network():
    page = (ROOT / "docs" / "results.md").read_text()
    (block,) = re.findall(r"<!-- reference -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert TABLES["reference"].note in block and "labelled and captioned photos" in TABLES["reference"].note
    labels = [arm.label for arm in arms("small", "reference")]
    assert all("recipe" in label and f"| {label} |" in block for label in labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrainings"], "did you mean pretraining?"),
        (["pretraining", "--only", "mml"], "--only 'mml' is no arm of pretraining; did you mean mlm?"),
        (["pretraining", "--seeds", "a"], "--seeds 'a' must be whole numbers"),
        (["pretraining", "--scale", "smal"], "did you mean small?"),
        (["reference", "--minutes", "0"], "--minutes '0' must be a number above 0"),
        (["negatives", "--finetune.step", "2"], "did you mean --finetune.steps?"),
        (["--write", "--seeds", "1"], "--write takes no table and no option but --root"),
    ],
)
def test_wrong_input_is_told_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        main([*arguments, "--root", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_a_page_without_a_place_for_a_table_is_named(checkout, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("<!-- pretraining -->\n<!-- end -->\n")
    with pytest.raises(DataError, match="has no place for negatives"):
        write(checkout / "runs" / "ablation", tmp_path)
    assert not (tmp_path / "bench").exists()
