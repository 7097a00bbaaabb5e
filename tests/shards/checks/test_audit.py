"""shards.check finds planted copies and leaks, and lets different pictures alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from testing.picture_source import PictureSource, encoded, pair, photo, picture

from shards.check import main
from shards.checks.leaks import audit
from shards.errors import DataError
from shards.format import manifest
from shards.format.tars import write_shard
from shards.images.duplicates import groups, pairs_within
from shards.images.fingerprints import fingerprint
from shards.pack import pack

ROOT = Path(__file__).resolve().parents[3]


def cut(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the width and height at each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES = {
    "compressed": lambda image: encoded(image, quality=30),
    "half": lambda image: encoded(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)),
    "doubled": lambda image: encoded(image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)),
    "squeezed": lambda image: encoded(image.resize((224, 224), Image.Resampling.BILINEAR)),
    "cut": lambda image: encoded(cut(image, 0.0125)),
    "darker": lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.8)),
    "harder": lambda image: encoded(ImageEnhance.Contrast(image).enhance(1.2)),
    "png": lambda image: encoded(image.resize((150, 110), Image.Resampling.LANCZOS), "PNG"),
}


def grouped(pictures: list[bytes]) -> list[int]:
    """The group of each picture, by hash and thumbnail alone."""
    prints = [fingerprint(data) for data in pictures]
    assert all(one.thumbnail is not None for one in prints)
    return groups(
        np.array([one.hash for one in prints], np.uint64), np.stack([one.thumbnail for one in prints])
    ).tolist()


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.lists(st.sets(st.integers(0, 63), max_size=13), min_size=1, max_size=12),
    st.integers(0, 14),
)
@settings(max_examples=150, deadline=None)
def test_the_search_finds_exactly_what_brute_force_finds(centres, changes, distance):
    hashes = [centre ^ sum(1 << bit for bit in bits) for centre in centres for bits in changes]
    wanted = [(i, j) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= distance]
    blocks = pairs_within(np.array(hashes, np.uint64), distance)
    assert sorted((int(a), int(b)) for i, j in blocks for a, b in zip(i, j, strict=True)) == sorted(wanted)


def test_the_search_is_the_same_in_small_blocks(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**10, 300, dtype=np.uint64)
    whole = {pair for i, j in pairs_within(hashes) for pair in zip(i.tolist(), j.tolist(), strict=True)}
    monkeypatch.setattr("shards.images.duplicates.BLOCK", 7)
    small = [pair for i, j in pairs_within(hashes) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert len(small) == len(whole) == 300 * 299 // 2 and set(small) == whole


def test_copies_of_photos_are_found_and_different_photos_are_not(shared_data):
    paths = sorted((shared_data / "cub50" / "images").glob("*/*.jpg"))[::60]
    photos = [Image.open(path).convert("RGB") for path in paths]
    assert len(photos) > 40
    files = [encoded(image, quality=95) for image in photos]
    assert len(set(grouped(files))) == len(files)
    for name, change in COPIES.items():
        numbers = grouped(files + [change(image) for image in photos])
        found = [numbers[i] == numbers[i + len(files)] for i in range(len(files))]
        assert np.mean(found) >= 0.97, name
        assert len(set(numbers[: len(files)])) == len(files), name


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_copy_across_splits_is_a_leak(change, tmp_path, capsys):
    images = {str(seed): encoded(picture(seed), quality=92) for seed in range(6)}
    images["copy"] = change(picture(2))
    records = [photo("train" if key != "copy" else "test", key) for key in images] + [photo("test", "own", image="own")]
    images["own"] = encoded(picture(77))
    pack(PictureSource(records, images), tmp_path / "data")
    assert main([str(tmp_path / "data")]) == 1
    lines = capsys.readouterr().out.splitlines()
    suffix = "png" if images["copy"].startswith(b"\x89PNG") else "jpg"
    assert lines[0] == (
        f"leak, near duplicates in train and test: train 2.photo.jpg (source/2), test copy.photo.{suffix} (source/copy)"
    )
    assert "test: 1 of 2 pictures are in train too (0 same bytes, 0 same pixels, 1 near duplicates)" in lines
    assert sum(line.startswith("leak") for line in lines) == 1


def test_exact_copies_are_told_from_equal_pixels(tmp_path):
    files = {"a": encoded(picture(1), "PNG"), "b": encoded(picture(1), "PNG", compress_level=1)}
    files |= {"c": files["a"], "d": encoded(picture(2), "PNG"), "e": encoded(picture(2), "PNG", compress_level=1)}
    splits = {"a": "train", "b": "val", "c": "test", "d": "train", "e": "test"}
    pack(PictureSource([photo(split, key) for key, split in splits.items()], files), tmp_path / "data")
    found = audit([tmp_path / "data"])
    assert [(leak, how, [one.member[0] for one in which]) for leak, how, which in found.findings()] == [
        (True, "same bytes", ["a", "b", "c"]),
        (True, "same pixels", ["d", "e"]),
    ]
    assert found.shared(2, 0) == [1, 1, 0] and found.shared(1, 0) == [0, 1, 0] and found.shared(2, 1) == [0, 1, 0]


def test_plain_pictures_are_compared_exactly_alone(tmp_path):
    def dot(shade):
        image = Image.new("RGB", (160, 120), (200, 200, 200))
        image.paste((shade, 40, 40), (70, 50, 90, 70))
        return encoded(image)

    images = {"red": dot(200), "again": dot(200), "other": dot(190)}
    records = [photo(split, key) for split, key in (("train", "red"), ("test", "again"), ("test", "other"))]
    pack(PictureSource(records, images), tmp_path / "data")
    found = audit([tmp_path / "data"])
    assert [[one.member[:3] for one in which] for _, _, which in found.findings()] == [["red", "aga"]]
    assert found.plain == 2


def test_before_and_after_of_one_pair_are_no_finding(tmp_path, capsys):
    before, after = picture(1), picture(1)
    after.paste((255, 0, 0), (60, 40, 64, 44))
    images = {"b": encoded(before), "a": encoded(after), "x": encoded(picture(2)), "y": encoded(picture(3))}
    records = [pair("train", "one", "b", "a"), pair("train", "same", "x", "x"), pair("test", "two", "y", "y")]
    records = [replace(record, changed=None) for record in records]  # equal pictures marked changed are a fault
    pack(PictureSource(records, images), tmp_path / "data")
    assert main([str(tmp_path / "data"), "--all"]) == 0
    out = capsys.readouterr().out
    assert "duplicates within" not in out and "same bytes within" not in out
    assert "note, the same caption in train 2, test 1: it moved" in out
    assert "note: 100.0 % of the 1 captions of test are in train word for word" in out


def test_a_scene_shared_by_two_pairs_is_a_note_within_and_a_leak_across(tmp_path, capsys):
    images = {str(seed): encoded(picture(seed)) for seed in range(6)}
    inside = [pair("train", "one", "0", "1"), pair("train", "two", "0", "2"), pair("test", "three", "3", "4")]
    pack(PictureSource(inside, images), tmp_path / "inside")
    assert main([str(tmp_path / "inside"), "--all"]) == 0
    out = capsys.readouterr().out
    assert "note, same bytes within train: train one.before.jpg (source/one), train two.before.jpg (source/two)" in out
    assert "note: within train, 1 group of same bytes" in out
    pack(PictureSource([*inside, pair("test", "four", "1", "5")], images), tmp_path / "across")
    assert main([str(tmp_path / "across")]) == 1
    line = "leak, same bytes in train and test: train one.after.jpg (source/one), test four.before.jpg (source/four)"
    assert line in capsys.readouterr().out


def test_a_leak_between_two_folders_is_found(tmp_path, capsys):
    images = {str(seed): encoded(picture(seed), quality=95) for seed in range(4)}
    images["small"] = encoded(picture(3).resize((100, 75), Image.Resampling.LANCZOS))
    first, second = str(tmp_path / "expansion"), str(tmp_path / "task")
    pack(PictureSource([photo("train", key) for key in "012"] + [photo("train", "small")], images), first)
    pack(PictureSource([replace(pair("test", "p", "3", "3"), changed=None)], images), second)
    assert main([first]) == 0 and main([second]) == 0
    capsys.readouterr()
    assert main([first, second]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("leak, near duplicates in train and test: ")
    assert f"{first} train small.photo.jpg" in lines[0] and f"{second} test p.before.jpg" in lines[0]
    assert any(line.startswith("1 group of pictures in more than one split (0 of same bytes") for line in lines)


def test_long_groups_name_some_and_count_the_others(tmp_path, capsys):
    images = {"one": encoded(picture(1))}
    records = [photo("train", f"k{i}", image="one") for i in range(9)] + [photo("test", "t", image="one")]
    pack(PictureSource(records, images), tmp_path / "data")
    assert main([str(tmp_path / "data")]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.count("photo.jpg") == 7 and "3 more of train, test t.photo.jpg" in line


def test_bad_input_ends_in_one_line(tmp_path):
    good = tmp_path / "good"
    pack(PictureSource([photo("test", "a")], {"a": encoded(picture(1))}), good)
    with pytest.raises(DataError, match="twice"):
        audit([good, good])
    with pytest.raises(DataError, match="no such folder"):
        main([str(tmp_path / "nowhere")])
    contents = manifest.read(good)
    lists: dict = {"confuse": [], "replace": [], "retrieve": []}
    record = {"kind": "photo", "source": "s", "id": "i", "captions": [], "negatives": lists}
    damaged = {"photo.jpg": encoded(picture(1))[:900], "json": manifest.encode(record)}
    entry = write_shard(good, "photos-test-000000.tar", [("b", damaged)]) | {"kind": "photo", "split": "test"}
    manifest.write(good, contents | {"shards": [entry]})
    with pytest.raises(DataError, match="member b.photo.jpg: damaged JPEG"):
        audit([good])
    damaged["json"] = manifest.encode(record | {"captions": "no"})
    entry |= write_shard(good, "photos-test-000000.tar", [("b", damaged)])
    manifest.write(good, contents | {"shards": [entry]})
    with pytest.raises(DataError, match="member b.json: 'captions' is not a list of text"):
        audit([good])
    del contents["tokenizer"], contents["text"]
    manifest.write(good, contents | {"features": {"dim": 3}, "shards": [], "splits": {}})
    with pytest.raises(DataError, match="holds features"):
        audit([good])


def test_an_empty_folder_has_no_findings(copied, capsys):
    counts = manifest.count_splits([])
    manifest.write(copied, manifest.read(copied) | {"shards": [], "splits": counts})
    assert main([str(copied)]) == 0
    assert capsys.readouterr().out.startswith("0 pictures, 0 different")


def test_the_command_exits_with_its_code(tmp_path):
    pack(PictureSource([photo("test", "a")], {"a": encoded(picture(1))}), tmp_path / "data")

    def run(*arguments):
        command = [sys.executable, "-m", "shards.check", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    good = run(tmp_path / "data")
    assert good.returncode == 0 and good.stdout.startswith("1 picture, 1 different")
    bad = run(tmp_path)
    assert bad.returncode == 2 and len(bad.stderr.splitlines()) == 1 and "manifest.json" in bad.stderr
