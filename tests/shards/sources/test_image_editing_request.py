"""Image-Editing-Request: real requests with small photos, and files of another form."""

from __future__ import annotations

import json
import shutil

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import main, pack
from shards.reading.reader import Folder
from shards.sources.image_editing_request import ImageEditingRequestSource


@pytest.fixture
def root(tmp_path, shared_data, write_photo):
    """The real files, with photos of the first three requests of each."""
    folder = tmp_path / "root"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        path = folder / f"{split}.json"
        shutil.copyfile(shared_data / "text" / f"image_editing_request_{split}.json", path)
        for entry in json.loads(path.read_text())[:3]:
            write_photo(folder / "images" / entry["img0"])
            write_photo(folder / "images" / entry["img1"], "PNG")
    return folder


def test_the_real_requests_are_packed(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["image_editing_request", "--root", str(root), "--out", str(out), "--workers", "1"]
    with pytest.raises(DataError, match=r"3923 of 3939 samples .*3923 no photo; the first, train Zhopped"):
        main(command)
    assert not out.exists()
    assert main([*command, "--max-dropped", "1"]) == 0
    photos = {path.name for path in (root / "images").iterdir()}  # more requests than the first three have them
    files = {split: json.loads((root / f"{split}.json").read_text()) for split in ("train", "valid", "test")}
    expected = [sum({entry["img0"], entry["img1"]} <= photos for entry in entries) for entries in files.values()]
    assert capsys.readouterr().out.startswith("train: {} pair\nval: {} pair\ntest: {} pair\n".format(*expected))
    assert verify(out) == []
    folder = Folder.open(out)
    assert folder.manifest["dropped"] == {"no photo": 3061 + 383 + 495 - sum(expected)}
    stream = folder.stream("pair", "test")
    record, members = stream.sample(stream.find("test-Reddit_1052"))
    assert record["id"] == "Reddit_1052" and record["captions"][0] == "take the people out of the back in the photo"
    assert members["before.jpg"] == (root / "images" / "Reddit.com_4wfxf2_4wfxf2.jpg").read_bytes()
    assert members["after.png"] == (root / "images" / "Reddit.com_4wfxf2_d66nm3m_2.jpg").read_bytes()


def test_photos_may_lie_beside_a_file_called_val(tmp_path, write_photo):
    for name in ("a.1.JPG", "a.2.JPEG"):
        write_photo(tmp_path / name)
    (tmp_path / "a.3.gif").write_bytes(b"GIF9000")
    entries = [
        {"img0": "a.1.jpg", "img1": "a.2.jpg", "sents": ["brighten it"], "uid": 5, "extra": None},
        {"img0": "a.1.jpg", "img1": "a.3.gif", "sents": ["turn it"], "uid": 6},
        {"img0": "a.1.jpg", "img1": "a.2.jpg", "sents": [], "uid": 7},
    ]
    (tmp_path / "val.json").write_text(json.dumps(entries))
    source = ImageEditingRequestSource(tmp_path)
    (record,) = source.records()
    assert (record.split, record.key, record.images["after.jpg"]) == ("val", "val-5", "a.2.JPEG")
    assert source.lost == ["val 6: no photo in a known format (a.3.gif)", "val 7: no captions"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uid": "two"}, None),
        ({}, "entry 1: uid 'one' is that of entry 0 too"),
        ({"uid": "two", "img1": "../b.jpg"}, "entry 1: img1 is '../b.jpg', which cannot be part of a file name"),
        ({"uid": "two", "img1": 5.0}, "entry 1: img1 is 5.0, not a name"),
        ({"uid": "two", "sents": {"0": "a"}}, "entry 1: sents is {'0': 'a'}, not a list of sentences"),
    ],
)
def test_a_file_of_another_form_ends_in_one_line(tmp_path, write_photo, change, words):
    root = tmp_path / "root"
    write_photo(root / "a.jpg")
    entry = {"img0": "a.jpg", "img1": "a.jpg", "sents": ["a"], "uid": "one"}
    (root / "train.json").write_text(json.dumps([entry, entry | change]))
    source = ImageEditingRequestSource(root)
    if words is None:
        assert len(source.records()) == 2
        return
    with pytest.raises(DataError, match=words) as caught:
        pack(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
