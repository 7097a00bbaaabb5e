"""Photos whose names are spelt otherwise, and the words for each way in which a photo is not there."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.pack import pack
from shards.sources.layouts import layout
from shards.sources.layouts.layout import Photos, image_fault
from shards.sources.layouts.names import A_FOLDER, DEAD_LINK, NO_PHOTO, OTHER_CASE, OTHER_ENDING, Names
from shards.sources.pairs import PairsSource
from shards.sources.spot_the_diff import SpotTheDiffSource

NFC, NFD = (unicodedata.normalize(form, "café über") for form in ("NFC", "NFD"))


def table(root: Path, *names: str) -> PairsSource:
    rows = [{"before": f"p/{name}", "after": "p/ok.png", "captions": ["the car is gone"]} for name in names]
    (root / "t.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return PairsSource(root)


@pytest.mark.parametrize(("told", "there"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_in_another_unicode_form_is_found_and_told(tmp_path, write_photo, capsys, told, there):
    for name in (f"{there}.png", "ok.png"):
        write_photo(tmp_path / "p" / name)
    manifest = pack(table(tmp_path, f"{told}.png"), tmp_path / "out")
    assert manifest["splits"]["train"]["pair"] == 1 and manifest["dropped"] == {}
    said = capsys.readouterr().err
    assert said.count("Unicode form (NFC or NFD): 1, the first: p/" + told) == 1


def test_it_is_found_in_folders_and_without_its_ending(tmp_path, write_photo, capsys):
    for name in (f"{NFD}.png", f"{NFD}_2.png"):
        write_photo(tmp_path / "images" / name)
    entries = [{"img_id": NFC, "sentences": ["the car is gone"]}]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    assert len(SpotTheDiffSource(tmp_path).records()) == 1
    assert "Unicode form (NFC or NFD): 2" in capsys.readouterr().err
    write_photo(tmp_path / NFD / NFD / "1.png")
    assert Names(tmp_path).spelt(f"{NFC}/{NFC}/1.png") == f"{NFD}/{NFD}/1.png"
    assert Names(tmp_path).spelt(f"../{tmp_path.name}/images/{NFC}.png") == f"../{tmp_path.name}/images/{NFC}.png"


def test_the_exact_name_comes_first(tmp_path, write_photo):
    for name in (f"{NFD}.png", f"{NFC}.png"):
        write_photo(tmp_path / name)
    assert Names(tmp_path).spelt(f"{NFC}.png") == f"{NFC}.png"
    assert Photos(tmp_path).find(f"{NFC}.png", (".",)) == f"{NFC}.png"


@pytest.fixture
def odd(tmp_path, write_photo) -> Path:
    for name in ("IMG.PNG", "ok.png"):
        write_photo(tmp_path / "p" / name)
    (tmp_path / "p" / "folder.png").mkdir()
    (tmp_path / "p" / "link.png").symlink_to("nowhere.png")
    return tmp_path


WORDS = {
    "img.PNG": OTHER_CASE, "Ok.jpg": OTHER_ENDING, "folder.png": A_FOLDER, "link.png": DEAD_LINK, "gone.png": NO_PHOTO,
}  # fmt: skip


def test_each_way_to_be_missing_has_its_own_words(odd):
    source = table(odd, *WORDS, "ok.png")
    source.records()
    assert source.dropped == dict.fromkeys(WORDS.values(), 1)
    assert source.lost == [
        f"t.jsonl line {number}: {reason} (p/{name})" for number, (name, reason) in enumerate(WORDS.items(), start=1)
    ]
    photos = Photos(odd)
    for name, reason in WORDS.items():
        assert image_fault(odd, f"p/{name}") == reason
        assert photos.locate(name, (".", "p")) == (None, reason)
    assert photos.locate("ok.png", (".", "p")) == ("p/ok.png", None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "a photo that may not be read"),
        (OSError(6, "No such device or address"), "a photo that cannot be read (No such device or address)"),
    ],
)
def test_a_photo_that_cannot_be_opened_says_why(odd, monkeypatch, error, words):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(layout, "open", refuse, raising=False)  # root may read every file
    assert image_fault(odd, "p/ok.png") == words


def test_a_folder_that_may_not_be_listed_is_named(odd, monkeypatch):
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(layout.os, "scandir", refuse)  # root may list every folder
    with pytest.raises(DataError, match=r"p cannot be listed \(Permission denied\): make it readable"):
        Photos(odd).find("ok.png", ("p",))
