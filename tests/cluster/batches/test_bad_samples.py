"""A bad sample is replaced, by the same one on any number of workers, said once, and stops the run past the limit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from testing.multirank import run_ranks

from cluster.batches.bad_samples import Bad, BadSamples
from cluster.batches.batches import Batches, StepBatch
from cluster.batches.samples import Samples
from cluster.config.fields import StageConfig
from cluster.distributed.ranks import Ranks
from cluster.tracking.run_log import RunLog, read_metrics
from idc.captioning import tokenizer as tokenizers
from shards.errors import DataError
from shards.format import index, manifest
from shards.format.tars import write_shard
from shards.order.permutation import locate
from shards.order.replacement import TRIES, replacements
from shards.reading.reader import Folder

SEED = 5


@pytest.fixture
def damaged(tiny: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the shard and the feature folder, to be damaged."""
    return tuple(Path(shutil.copytree(path, tmp_path / path.name)) for path in (tiny.shards, tiny.features))


def flip(folder: Path, member: str) -> None:
    """Changes one byte inside a member, as a disk might."""
    for path in folder.glob("*" + index.ENDING):
        for row in index.parse(path.read_bytes(), path):
            if row.name == member:
                tar = path.with_name(path.name.replace(index.ENDING, ".tar"))
                data = bytearray(tar.read_bytes())
                data[row.offset + row.length // 2] ^= 1
                tar.write_bytes(data)
                return
    raise AssertionError(f"{folder} has no {member}")


def make(tiny: Any, folders: tuple[Path, Path], stage: StageConfig, rank: int = 0, world: int = 1) -> Batches:
    tokenizer = tokenizers.load(tiny.shards / "tokenizer.model")
    return Batches(*folders, tokenizer, tiny.config.model, 12, stage, SEED, rank, world)


def images(batch: StepBatch) -> list[bytes]:
    """The features of each sample of a step, whatever it is cut into."""
    roles = ("before", "after", "photo")
    parts = [[part[role] for role in roles if role in part] for part in batch.micro_batches]
    return [b"".join(tensor[row].numpy().tobytes() for tensor in part) for part in parts for row in range(len(part[0]))]


@pytest.mark.parametrize(("folder", "member"), [(1, "after.npy"), (0, "json")])
def test_another_sample_stands_in_the_same_on_any_number_of_ranks(
    tiny: Any, damaged: Any, folder: int, member: str
) -> None:
    stage = dataclasses.replace(tiny.config.finetune, steps=30, ratios={"finetune": 1.0})
    stream, arrays = (Folder.open(path).stream("pair", "train") for path in (tiny.shards, tiny.features))
    position = 3  # the fourth sample of the first step
    _, place = locate(position, len(stream), SEED)
    stand_in = next(replacements(position, len(stream), SEED, 0))
    flip(damaged[folder], f"{stream.keys[place]}.{member}")
    whole, alone = make(tiny, (tiny.shards, tiny.features), stage), make(tiny, damaged, stage)
    pair = [make(tiny, damaged, stage, rank, 2) for rank in range(2)]
    met = []
    for step in range(stage.steps):
        batch, parts = alone.step(step), [batches.step(step) for batches in pair]
        assert sorted(images(batch)) == sorted(images(parts[0]) + images(parts[1]))
        assert batch.bad == parts[0].bad + parts[1].bad
        met += batch.bad
    assert len(met) > 1 and {bad.key for bad in met} == {stream.keys[place]}
    assert all(f"member {stream.keys[place]}.{member} is damaged" in bad.why for bad in met)

    first, untouched = images(alone.step(0)), images(whole.step(0))
    assert [row == other for row, other in zip(first, untouched, strict=True)] == [n != position for n in range(8)]
    standing = arrays.arrays(stand_in)
    assert first[position] == b"".join(standing[role].tobytes() for role in ("before", "after"))
    for step in range(20, 30):
        assert images(make(tiny, damaged, stage).step(step)) == images(alone.step(step)), "a resumed run sees the same"


def test_a_bad_class_photo_is_neither_shown_nor_a_partner(tiny: Any, damaged: Any) -> None:
    key = Folder.open(tiny.shards).stream("class", "train").keys[7]
    flip(damaged[0], f"{key}.json")
    gone = Folder.open(tiny.features).stream("class", "train").arrays(7)["photo"].tobytes()
    stage = dataclasses.replace(tiny.config.stage("pretrain"), steps=60, ratios={"classify": 1.0})
    batches = make(tiny, damaged, stage)
    steps = [batches.step(step) for step in range(stage.steps)]
    assert {bad.key for batch in steps for bad in batch.bad} == {key}
    for batch in steps:
        for part in batch.micro_batches:
            assert gone not in [photo.numpy().tobytes() for photo in (*part["before"], *part["after"])]
            assert part["class_before"].min() >= 0 and part["class_after"].min() >= 0


@pytest.mark.parametrize("fault", [{"captions": "one"}, {"captions": []}, {"changed": "yes"}, {"negatives": None}])
def test_json_of_the_wrong_form_is_bad(tiny: Any, damaged: Any, fault: dict) -> None:
    contents = manifest.read(damaged[0])
    entry = next(entry for entry in contents["shards"] if entry["name"].startswith("pairs-train"))
    stream = Folder.open(damaged[0]).stream("pair", "train")
    samples = [(key, stream.read(i)) for i, key in enumerate(stream.keys[: entry["samples"]])]
    samples[2][1]["json"] = json.dumps(json.loads(samples[2][1]["json"]) | fault).encode()
    entry |= write_shard(damaged[0], entry["name"], samples)
    manifest.write(damaged[0], contents)
    read = Samples(*damaged, "pair", "train")
    bad: list[Bad] = []
    assert read.first_good([2, 4], bad)[0] == 4
    assert [found.key for found in bad] == [samples[2][0]] and samples[2][0] in bad[0].why


def test_evaluation_replaces_nothing(tiny: Any, damaged: Any) -> None:
    key = Folder.open(tiny.shards).stream("pair", "val").keys[1]
    flip(damaged[1], f"{key}.before.npy")
    flip(damaged[0], f"{key}.json")
    samples = Samples(*damaged, "pair", "val")
    with pytest.raises(DataError, match=f"member {key}.before.npy is damaged"):
        samples.arrays([0, 1])
    with pytest.raises(DataError, match=f"member {key}.json is damaged"):
        samples.record(1)


def test_nothing_left_to_stand_in_ends_the_run(tiny: Any, damaged: Any) -> None:
    stage = dataclasses.replace(tiny.config.finetune, steps=1, ratios={"finetune": 1.0})
    batches = make(tiny, damaged, stage)
    for path in damaged[1].glob("pairs-train-*.tar"):
        path.unlink()
    with pytest.raises(DataError, match="none of the samples drawn in its place"):
        batches.step(0)


def test_draws_depend_on_the_position_alone() -> None:
    drawn = list(replacements(12, 100, 7, 0))
    assert len(drawn) == TRIES and drawn == list(replacements(12, 100, 7, 0)) and set(drawn) <= set(range(100))
    assert drawn != list(replacements(13, 100, 7, 0)) and drawn != list(replacements(12, 100, 7, 1))


def _meet(run: Path, config: Any, found: list[list[list[Bad]]], share: float) -> tuple[int, str]:
    """Steps of one rank: (steps done, the error that ended them)."""
    ranks = Ranks(60)
    log = RunLog(run, config) if ranks.first else None
    bad = BadSamples(run, "finetune", {"pair samples": 40, "photos": 4000}, share, ranks, log)
    for step, of_ranks in enumerate(found, start=1):
        try:
            bad.note(step, of_ranks[ranks.rank])
            bad.meet()
        except DataError as error:
            return step, str(error)
    return len(found), ""


@pytest.mark.ranks
def test_all_ranks_stop_at_the_same_step_past_the_limit(tiny: Any, tmp_path: Path) -> None:
    a, b, c = (Bad("pair samples", key, "damaged") for key in "abc")
    photo = Bad("photos", "p", "gone")
    found = [[[], []], [[a, a], [a]], [[], [a]], [[photo], []], [[], [b]], [[c], []]]
    results = run_ranks(2, _meet, tmp_path, tiny.config, found, 0.001)
    assert results[0] == results[1] and results[0][0] == 5
    assert results[0][1] == (
        "finetune step 5: 2 of 40 pair samples are bad and --data.bad_samples 0.001 allows 1: a (damaged); b (damaged)"
    )
    logged = [(record["step"], record["bad_sample"]["key"]) for record in read_metrics(tmp_path)]
    assert logged == [(2, "a"), (4, "p"), (5, "b")], "each once"
    # Resumed from step 4 with a higher limit: what was met before still counts, and is not said again.
    RunLog(tmp_path, tiny.config).rewind("finetune", 4)
    resumed = run_ranks(1, _meet, tmp_path, tiny.config, [[[a]], [[b]], [[c]]], 0.05)
    assert resumed[0][0] == 3 and "3 of 40 pair samples are bad" in resumed[0][1] and "allows 2" in resumed[0][1]
    assert [record["bad_sample"]["key"] for record in read_metrics(tmp_path)] == ["a", "p", "b", "c"]


@pytest.mark.ranks
def test_no_bad_sample_is_let_pass_where_none_is_allowed(tiny: Any, tmp_path: Path) -> None:
    found = [[[Bad("photos", "p", "gone")]]]
    assert "allows 0" in run_ranks(1, _meet, tmp_path, tiny.config, found, 0.0)[0][1]
