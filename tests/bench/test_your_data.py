"""bench.your_data: own pairs of any number with one test, the table with the cells that nobody ran, wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from testing.photos import write_photos
from testing.refusal import refused

from bench.your_data import folders, page
from bench.your_data.__main__ import main
from bench.your_data.arms import right_kind
from cluster.pipeline import PREDICTIONS
from shards.edits.grammar import parse
from shards.reading.reader import Folder


@pytest.mark.slow
def test_few_pairs_are_among_the_many_and_are_tested_on_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "EDITS", (12, 4, 6))
    monkeypatch.setattr(folders, "TESTED", 5)
    write_photos(tmp_path / "photos", 14)
    made = folders.made_of_photos(tmp_path / "photos", tmp_path / "data")
    ids: dict[int, dict[str, set[str]]] = {}
    for number in (5, 10):
        shards = Folder.open(folders.own_pairs(made, number, tmp_path / "data"))
        assert not shards.manifest["dropped"] and not shards.manifest["shared_images"]["between"]
        ids[number] = {
            split: {stream.metadata(place)["id"] for place in range(len(stream))}
            for split in ("train", "val", "test")
            for stream in [shards.stream("pair", split)]
        }
        assert {split: len(found) for split, found in ids[number].items()} == {
            "train": number, "val": number // folders.VALIDATED, "test": 5,
        }  # fmt: skip
    assert ids[5]["train"] < ids[10]["train"] and ids[5]["test"] == ids[10]["test"]
    photos = {split: {stream.metadata(place)["id"].partition("//")[0] for place in range(len(stream))}
              for split in ("train", "test") for stream in [made.stream("pair", split)]}  # fmt: skip
    assert not photos["train"] & photos["test"]


def test_the_table_has_mean_and_spread_and_says_what_was_not_run() -> None:
    runs = {str(seed): {"CIDEr": value, "seconds": 90.0} for seed, value in enumerate((10.0, 20.0, 30.0))}
    lines = page.table({"edits": {"50": {"init": runs}}}).splitlines()
    assert "| 50 edits of photos | `--init` | 20.0 ± 10.0 | - | - / - | 1.5 | 3 |" in lines
    assert f"| 50 edits of photos | nothing else | {page.ABSENT} |  |  |  |  |" in lines
    assert f"| 500 rendered scenes | any | {page.ABSENT} |  |  |  |  |" in lines
    assert sum(page.ABSENT in one for one in lines) == len(lines) - 3 == 2 * len(folders.SIZES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sizes 51", "--sizes '51' is none of 50, 500, 5000"),
        ("--pairs birds", "--pairs 'birds' is none of edits, blocks"),
        ("--pairs edits --only classes", "--only 'classes' is none of scratch, init"),
        ("--pairs edits", "--photos is missing"),
        ("--pairs blocks", "--other is missing"),
    ],
)
def test_wrong_options_are_told_before_anything_is_made(words: str, said: str, tmp_path: Path) -> None:
    with refused(said):
        main([*words.split(), "--root", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_the_kind_that_a_sentence_states_is_counted(tmp_path: Path) -> None:
    stated = [
        ("the picture was rotated clockwise", "rotate"),
        ("nothing has changed", "none"),
        ("it is raining", "add"),
        ("the picture was rotated clockwise", "crop"),
    ]
    assert [parse(caption) is not None for caption, _ in stated] == [True, True, False, True]
    lines = [json.dumps({"caption": caption, "change_type": kind}) + "\n" for caption, kind in stated]
    (tmp_path / PREDICTIONS).write_text("".join(lines))
    assert right_kind(tmp_path) == 50
