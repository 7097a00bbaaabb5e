"""docs/your-data.md: its five commands lead from two folders and a table to a caption; runs that start from others."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pages.doc_pages import commands
from PIL import Image
from testing.here import Done, run_here
from testing.photos import made_up_photo
from testing.suite.no_java import hide_java

import cluster.prepare
import idc.caption
import shards.check
import shards.pack
import shards.show
from bench.one_worker import one_rank
from cluster import pipeline
from cluster.distributed.devices import place, resolved
from cluster.errors import exit_code
from cluster.launch.run_folder import CONFIG
from cluster.recipes.commandline import parse, read_config
from cluster.seeds import run_seeds
from cluster.tracking.run_log import read_metrics
from cluster.training import worker
from cluster.training.checkpoint import latest, load_weights
from cluster.training.job import Job
from idc.captioning import model_folder
from shards.reading.reader import Folder

PAGE = "docs/your-data.md"
LINES = commands(PAGE)
SMALL = shlex.split(
    "--backbone.size 64,64 --model.size tiny --regions.steps 1 --pretrain.steps 0 --regions.batch_sizes pair_labels=8 "
    "--regions.micro_batch_size 16 --regions.contrastive_group 0 --finetune.steps 2 --finetune.validate_every 2 "
    "--finetune.global_batch_size 8 --evaluate.limit 2 --evaluate.beam 1 --evaluate.tokenizer split "
    "--cluster.workers 1 --data.pack_workers 1 --log.wandb disabled"
)
EDITS = ("--data.edits.pairs", "12,4,0", "--data.edits.size", "96,80")
TRAINED = re.compile(r"python cluster/train\.py (pairs --data\.shards data/photos --name photos.*)")
pytestmark = pytest.mark.ranks


def line(start: str) -> list[str]:
    """The words behind the program of the one line of the page that begins so."""
    (found,) = [text for text in LINES if text.startswith(start)]
    return shlex.split(found.removeprefix(start))


def fit(job: Job) -> None:
    """Of the process group of this module: DeepSpeed bears no second one in a process."""
    config = resolved(job.config, place(job.config.cluster, []))
    worker.run(dataclasses.replace(job, config=config), torch.device("cpu"))


def train(words: Sequence[str]) -> Done:
    """`cluster/train.py` on this process alone, small."""

    def main(arguments: Sequence[str]) -> int:
        return exit_code(lambda: pipeline.run(parse(arguments), fit))

    return run_here(main, *words, "--root", Path.cwd(), *SMALL)


def lines_of_training() -> list[list[str]]:
    return [shlex.split(found[1]) for text in LINES if (found := TRAINED.fullmatch(text))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with photos/ as the page wants it; the working folder meanwhile."""
    root = tmp_path_factory.mktemp("your-data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        hide_java(patch)
        rows = []
        for number in range(1, 25):
            photo, name = made_up_photo(number), f"{number:03d}.jpg"
            changed = Image.fromarray(np.asarray(photo) // 2) if number % 2 else photo
            for side, picture in (("before", photo), ("after", changed)):
                path = Path("photos") / side / name
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path, quality=95)
            words = "the photo is darker|the picture got darker" if number % 2 else "nothing has changed|no change"
            rows.append([name, words, "yes" if number % 2 else "no"])
        with open("photos/captions.csv", "w", newline="") as file:
            csv.writer(file).writerows([["name", "captions", "changed"], *rows])
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "")  # to be as it was when this module is over
        with one_rank("cpu", "fp32"):
            yield root


@pytest.fixture(scope="module")
def trained(home: Path) -> Done:
    """The first four commands, one after the other; what the fourth says."""
    parts: tuple[Callable, ...] = (shards.pack.main, shards.check.main, shards.show.main)
    for name, main in zip(("pack pairs", "check", "show"), parts, strict=True):
        module, _, source = name.partition(" ")
        done = run_here(main, *source.split(), *line(f"python -m shards.{name} "))
        assert done.returncode == 0, f"{module}: {done.stderr}"
    assert Path("data/photos-check.html").is_file() and Path("data/photos.html").is_file()
    return train(lines_of_training()[0])


def test_five_commands_lead_from_two_folders_and_a_table_to_a_caption(trained: Done) -> None:
    assert (
        len(re.findall(r"^python ", (Path(__file__).parents[2] / PAGE).read_text().split("## Few pairs")[0], re.M)) == 5
    )
    assert trained.returncode == 0 and "pairs: 19 training pairs, so regions" in trained.stderr, trained.stderr
    assert Path("runs/photos/report.html").is_file()
    done = run_here(idc.caption.main, *line("python -m idc.caption "))
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_edits_of_the_training_photos_alone_come_first(trained: Done) -> None:
    words = next(words for words in lines_of_training() if "--pretraining" in words)
    words[words.index("photos")] = "after_edits"
    done = train([*words, *EDITS, "--data.bad_samples", "0"])
    assert done.returncode == 0, done.stderr
    own = read_config(Path("runs/after_edits") / CONFIG)
    first = read_config(Path(f"runs/{own.name}-edits") / CONFIG)
    assert own.init == f"runs/{first.name}" and first.init == ""
    edits = Folder.open(first.data.shards)
    assert edits.manifest["source"] == "edits" and edits.manifest["splits"]["train"]["pair"] == 12
    pairs, photos = Folder.open("data/photos"), {path.name for path in Path(first.data.edits.photos).iterdir()}
    keys = {split: set(pairs.stream("pair", split).keys) for split in ("train", "val", "test")}
    assert {name.split(".")[0] for name in photos} == keys["train"]
    assert not {name.split(".")[0] for name in photos} & (keys["val"] | keys["test"])
    assert {record["stage"] for record in read_metrics(Path(f"runs/{first.name}"))} == {"regions", "finetune"}
    before = [path.stat().st_mtime_ns for path in sorted(Path(f"runs/{first.name}/checkpoints").rglob("COMMIT"))]
    again = train([*words, *EDITS, "--data.bad_samples", "0"])
    assert again.returncode == 0 and "regions is done" in again.stderr, again.stderr
    now = [path.stat().st_mtime_ns for path in sorted(Path(f"runs/{first.name}/checkpoints").rglob("COMMIT"))]
    assert now == before, "what is trained is left"


def test_edits_are_made_once_for_all_seeds_and_by_prepare(trained: Done) -> None:
    """Before anything is trained, where compute nodes have no network or much time; no seed makes them anew."""
    words = shlex.split("pairs --data.shards data/photos --name drawn --pretraining edits")
    words += [*EDITS, "--seed", "0"]
    prepared = run_here(cluster.prepare.main, *words, "--root", Path.cwd(), *SMALL)
    assert prepared.returncode == 0 and "the data of drawn are ready" in prepared.stderr, prepared.stderr
    assert not Path("runs/drawn").exists()
    made = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}
    words[-2:] = ["--seeds", "0,1", "--stage", "pretrain", "--finetune.steps", "1"]

    def main(arguments: Sequence[str]) -> int:
        return exit_code(lambda: run_seeds(parse(arguments), fit))

    done = run_here(main, *words[:-2], "--root", Path.cwd(), *SMALL, *words[-2:])
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()} == made
    runs = {seed: read_config(Path(f"runs/drawn-seeds/seed_{seed}") / CONFIG) for seed in (0, 1)}
    edits = {seed: read_config(Path(f"runs/drawn-seeds/seed_{seed}-edits") / CONFIG) for seed in (0, 1)}
    assert {seed: (run.seed, run.init) for seed, run in runs.items()} == {
        seed: (seed, f"runs/drawn-seeds/seed_{seed}-edits") for seed in (0, 1)
    }
    assert [run.seed for run in edits.values()] == [0, 1] and edits[0].data == edits[1].data


def test_a_run_starts_from_a_trained_one_and_what_does_not_fit_is_told_first(trained: Done) -> None:
    base = ["pairs", "--data.shards", "data/photos", "--init", "runs/photos"]
    done = train([*base, "--name", "further", "--stage", "pretrain", "--regions.lr", "1e-12"])
    assert done.returncode == 0, done.stderr
    theirs = model_folder.load("runs/photos").model.state_dict()
    newest = latest(Path("runs/further/checkpoints/regions"))
    assert newest is not None
    ours = load_weights(newest.weights)
    assert set(ours) == set(theirs)
    assert all(torch.allclose(ours[name], weight, atol=1e-5) for name, weight in theirs.items())
    made = json.dumps(sorted(map(str, Path("data").iterdir())))
    for more, said in (
        (["--model.size", "small"], "this model has d_model 32 and the run has 128: set --model.d_model 32"),
        (["--backbone.name", "mobilenetv3_small_100"], "looks through efficientnet_lite0 and the run through"),
        (["--init", "runs/nobody"], "runs/nobody: no such run folder, model folder or .safetensors file"),
        (["--init", "data"], "--init "),
    ):
        done = train([*base, "--name", "refused", *more]) if more[0] != "--model.size" else run_here(
            lambda words: exit_code(lambda: pipeline.run(parse(words), fit)), *base, "--name", "refused",
            "--root", Path.cwd(), *(word for word in SMALL if word not in ("--model.size", "tiny")), *more,
        )  # fmt: skip
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3 and not Path("runs/refused/config.yaml").exists()
    assert json.dumps(sorted(map(str, Path("data").iterdir()))) == made, "nothing is made before it is told"
