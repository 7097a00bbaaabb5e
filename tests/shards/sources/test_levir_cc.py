"""LEVIR-CC: a small folder in its layout, and files of another form."""

from __future__ import annotations

import json

import pytest

from shards.errors import DataError
from shards.pack import pack
from shards.sources import make_source
from shards.sources.levir_cc import ANNOTATIONS, LevirCcSource

SENTENCES = [
    {"tokens": ["a", "road", "is", "built"], "raw": " a road  is built .", "imgid": 0, "sentid": 0},
    {"tokens": ["a", "new", "road"]},
]


def entry(folder: str, number: int, flag: int | None = 1, **fields) -> dict:
    image = {"filename": f"{folder}_{number:06d}.png", "filepath": folder, "split": folder, "sentences": SENTENCES}
    return {"imgid": number, "sentids": [0, 1], "changeflag": flag} | image | fields


@pytest.fixture
def root(tmp_path, write_photo):
    """Six entries; the second of train lacks a photo, the third is told by its flag alone to be without a change."""
    folder = tmp_path / "root"
    entries = [entry("train", 1), entry("train", 2), entry("train", 3, 0), entry("train", 4, None)]
    entries += [entry("val", 1, sentences=[]), entry("test", 1)]
    for image in entries:
        for side in "AB":
            write_photo(folder / "images" / image["split"] / side / image["filename"], "PNG")
    (folder / "images" / "train" / "B" / "train_000002.png").unlink()
    (folder / ANNOTATIONS).write_text(json.dumps({"dataset": "LEVIR-CC", "images": entries}))
    return folder


def test_the_layout_is_packed(root, pack_root):
    folder, said = pack_root("levir_cc", root)
    assert "train: 3 pair" in said
    assert folder.manifest["dropped"] == {"no photo": 1, "no captions": 1}
    stream = folder.stream("pair", "train")
    record, members = stream.sample(0)
    assert record["id"] == "train_000001.png" and record["captions"] == ["a road is built .", "a new road"]
    assert members["before.png"] == (root / "images" / "train" / "A" / "train_000001.png").read_bytes()
    assert members["after.png"] == (root / "images" / "train" / "B" / "train_000001.png").read_bytes()
    labels = [(stream.metadata(place)["changed"], stream.metadata(place)["change_type"]) for place in range(3)]
    assert labels == [(True, None), (False, "none"), (None, None)]


def test_what_is_left_out_is_named(root):
    source = LevirCcSource(root)
    source.records()
    assert source.lost == [
        "train train_000002.png: no photo (train/B/train_000002.png)",
        "val val_000001.png: no captions",
    ]


def test_the_split_and_the_folder_may_differ_or_be_one(tmp_path, write_photo):
    images = [entry("train", 1, split="valid"), entry("test", 1)]
    del images[1]["split"]
    for folder in ("train", "test"):
        for side in "AB":
            write_photo(tmp_path / folder / side / f"{folder}_000001.PNG", "PNG")
    (tmp_path / ANNOTATIONS).write_text(json.dumps({"images": images}))
    found = [(record.split, record.images["after.jpg"]) for record in LevirCcSource(tmp_path).records()]
    assert found == [("val", "train/B/train_000001.PNG"), ("test", "test/B/test_000001.PNG")]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([], "is not a JSON object"),
        ({}, "has no 'images'"),
        ({"images": {}}, "'images' is not a list"),
        ({"images": [entry("train", 1, filename="../../a.png")]}, "entry 0 of 'images': filename is '../../a.png'"),
        ({"images": [entry("train", 1, filepath="..")]}, "filepath is '..', which cannot be"),
        ({"images": [entry("train", 1, 2)]}, "entry 0 of 'images': changeflag is 2, not 0 or 1"),
        ({"images": [entry("train", 1, "1")]}, "changeflag is '1', not 0 or 1"),
        ({"images": [entry("train", 1), entry("train", 1)]}, "entry 1 .*'train_000001.png' is entry 0 of train too"),
        ({"images": [entry("night", 1)]}, "split is 'night', not train, val or test"),
        ({"images": [entry("train", 1, split=None, filepath=None)]}, "has neither 'split' nor 'filepath'"),
        ({"images": [entry("train", 1, sentences="a")]}, "sentences is 'a', not a list of sentences"),
        ({"images": [entry("train", 1, sentences=[{"raw": 3}])]}, "sentences, number 1, is 3, not text"),
        ({"images": [entry("train", 1, sentences=[{"sentid": 3}])]}, "sentences, number 1, has no 'raw'"),
    ],
)
def test_a_file_of_another_form_ends_in_one_line(root, tmp_path, contents, words):
    (root / ANNOTATIONS).write_text(json.dumps(contents))
    with pytest.raises(DataError, match=words) as caught:
        pack(LevirCcSource(root), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_file_ends_in_one_line(tmp_path):
    with pytest.raises(DataError, match=f"{ANNOTATIONS} is missing: --root must be a LEVIR-CC folder"):
        make_source("levir_cc", tmp_path)
