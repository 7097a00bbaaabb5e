"""Spot-the-Diff: the real sentences by both protocols, and folders of another form."""

from __future__ import annotations

import json
import shutil

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import main, pack
from shards.reading.reader import Folder
from shards.sources import make_source
from shards.sources.spot_the_diff import SpotTheDiffSource

ENTRIES = {
    "train": [
        {"img_id": "7", "sentences": ["the car  is gone", "a man  walks "], "worker": 3},
        {"img_id": 8, "sentences": [""]},
        {"img_id": "7", "sentences": ["no car"]},
        {"img_id": "9", "sentences": ["no second photo"]},
    ],
    "test": [{"img_id": "lot a.1", "sentences": ["nothing has changed"]}],
}


@pytest.fixture
def root(tmp_path, write_photo):
    folder = tmp_path / "root"
    for name, form in (("7.PNG", "PNG"), ("7_2.png", "JPEG"), ("8.png", "PNG"), ("8_2.png", "PNG"), ("9.png", "PNG")):
        write_photo(folder / "images" / name, form)
    for name in ("lot a.1.jpg", "lot a.1_2.jpeg"):
        write_photo(folder / "resized_images" / name)
    for split, entries in ENTRIES.items():
        (folder / f"{split}.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(entries, indent=1).encode())
    return folder


@pytest.mark.parametrize(
    ("protocol", "captions"),
    [
        ("single", ["the car is gone", "a man walks", "no car"]),
        ("multi", ["the car is gone. a man walks", "no car"]),
    ],
)
def test_both_protocols_are_packed(root, tmp_path, capsys, protocol, captions):
    out = tmp_path / "out"
    command = ["spot_the_diff", "--root", str(root), "--out", str(out), "--workers", "1", "--protocol", protocol]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "train: 1 pair" in printed and "test: 1 pair" in printed and verify(out) == []
    folder = Folder.open(out)
    assert folder.manifest["dropped"] == {"no captions": 1, "no photo": 1}
    assert folder.manifest["options"]["protocol"] == protocol
    stream = folder.stream("pair", "train")
    record, members = stream.sample(stream.find("train-7"))
    assert record["id"] == "7" and record["captions"] == captions and record["changed"] is None
    assert members["before.png"] == (root / "images" / "7.PNG").read_bytes()
    assert members["after.jpg"] == (root / "images" / "7_2.png").read_bytes()
    assert folder.stream("pair", "test").metadata(0)["id"] == "lot a.1"


def test_what_is_left_out_is_named(root):
    source = SpotTheDiffSource(root)
    source.records()
    assert source.lost == ["train 8: no captions", "train 9: no photo (9_2)"]


@pytest.mark.slow
def test_the_real_sentences_are_read(shared_data, tmp_path, write_photo):
    root = tmp_path / "root"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        shutil.copyfile(shared_data / "text" / f"spot_the_diff_{split}.json", root / "annotations" / f"{split}.json")
    for name in ("256", "126", "5406"):
        write_photo(root / "images" / f"{name}.png", "PNG")
        write_photo(root / "images" / f"{name}_2.png", "PNG")
    single, multi = SpotTheDiffSource(root), SpotTheDiffSource(root, "multi")
    captions = {record.key: record.captions for record in single.records()}
    paragraphs = {record.key: record.captions for record in multi.records()}
    assert captions.keys() == paragraphs.keys() == {"train-126", "val-5406", "test-256"}
    assert len(captions["test-256"]) == 3 and len(paragraphs["test-256"]) == 1
    assert len(captions["train-126"]) == 4 and len(paragraphs["train-126"]) == 3  # of three people
    assert sum(single.dropped.values()) == len(single.lost) == 8566 + 1493 + 1270 - 3
    assert single.describe() != multi.describe()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}', "train.json is not a JSON list"),
        ('["a"]', "train.json: entry 0 is 'a', not an object"),
        ('[{"img_id": "1"}]', "train.json: entry 0 has no 'sentences'"),
        ('[{"img_id": "1", "sentences": "a"}]', "entry 0: sentences is 'a', not a list of sentences"),
        ('[{"img_id": "1", "sentences": ["a", 5]}]', "entry 0: sentences, number 2, is 5, not text"),
        ('[{"img_id": "../../etc/passwd", "sentences": ["a"]}]', "entry 0: img_id is '../../etc/passwd'"),
        ('[{"img_id": null, "sentences": ["a"]}]', "entry 0: img_id is None, not a name"),
    ],
)
def test_a_file_of_another_form_ends_in_one_line(root, tmp_path, content, words):
    (root / "train.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        pack(SpotTheDiffSource(root), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_wrong_options_and_folders_end_in_one_line(root, tmp_path):
    with pytest.raises(DataError, match="--protocol is 'both'"):
        make_source("spot_the_diff", root, {"protocol": "both"})
    with pytest.raises(DataError, match="none of its annotation files"):
        make_source("spot_the_diff", root / "images")
    shutil.rmtree(root / "images")
    shutil.rmtree(root / "resized_images")
    with pytest.raises(DataError, match=r"no pair that can be packed.*first of 4 left out: train 7: no photo \(7\)"):
        pack(make_source("spot_the_diff", root), tmp_path / "out")
