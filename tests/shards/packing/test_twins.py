"""The same image, byte for byte, in several splits: counted at packing and told."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from shards.format import manifest
from shards.format.index import Row
from shards.pack import main, pack
from shards.packing.twins import describe, find_twins, report
from shards.sources.pairs import PairsSource

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


@pytest.fixture
def root(tmp_path):
    rows = []
    (tmp_path / "root").mkdir()
    for number, split in enumerate(SPLITS):
        for side, shade in (("a", 1), ("b", 2)):
            Image.new("RGB", (8, 8), (number * 20, shade * 60, 5)).save(tmp_path / "root" / f"{number}{side}.png")
        rows.append({"before": f"{number}a.png", "after": f"{number}b.png", "captions": ["a car"], "split": split})
    (tmp_path / "root" / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "root"


def test_twins_across_splits_are_counted_and_told(root, tmp_path, capsys):
    shutil.copy(root / "0a.png", root / "8a.png")  # train and test
    shutil.copy(root / "1b.png", root / "9b.png")  # train, val and test
    shutil.copy(root / "1b.png", root / "7a.png")
    shutil.copy(root / "2a.png", root / "3a.png")  # within train
    out = str(tmp_path / "out")
    assert main(["pairs", "--root", str(root), "--out", out, "--workers", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "byte for byte" in line]
    told = manifest.read(tmp_path / "out")["shared_images"]
    assert told["between"] == {"train and val": 1, "train and test": 2, "val and test": 1}
    assert len(lines) == 1 and "1 in train and val, 2 in train and test, 1 in val and test" in lines[0]
    assert f"python -m shards.check {out} lists all" in lines[0] and told["first"][0] in lines[0]


def test_splits_that_share_nothing_are_not_spoken_of(root, tmp_path):
    contents = pack(PairsSource(root), tmp_path / "out")
    assert contents["shared_images"] == {"between": {}, "first": []}
    assert list(report(contents["shared_images"], "out")) == [] and list(report({}, "out")) == []


def test_a_bucket_is_searched_as_a_folder_is(root, tmp_path):
    shutil.copy(root / "0a.png", root / "8a.png")
    here = pack(PairsSource(root), tmp_path / "out")["shared_images"]
    there = pack(PairsSource(root), "memory://twins/out")["shared_images"]
    assert here == there and here["between"] == {"train and test": 1}


def test_equal_lengths_and_checksums_are_compared_by_bytes():
    shards = [{"name": f"{split}.tar", "split": split} for split in ("train", "test")]
    rows = {name: [Row("k.json", 512, 4, 7), Row("k.photo.png", 1536, 4, 7)] for name in ("train.tar", "test.tar")}
    unlike = find_twins(shards, rows.__getitem__, lambda name, offset, length: name[:length].encode())
    alike = find_twins(shards, rows.__getitem__, lambda name, offset, length: b"same"[:length])
    assert unlike == [] and describe(alike)["between"] == {"train and test": 1}
    assert find_twins([], rows.__getitem__, lambda *_: b"") == []
