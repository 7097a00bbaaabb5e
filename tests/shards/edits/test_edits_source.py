"""Edited photos as a source: any folder of photos, splits without a common photo, packing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from testing.photos import made_up_photo, write_photos

from shards.blocks.grammar import agrees
from shards.checks.verification import verify
from shards.edits.pictures import draw_pair, open_photo
from shards.errors import DataError
from shards.images.decode import decode_image
from shards.negatives.kinds import KINDS
from shards.pack import main, pack
from shards.reading.reader import Folder
from shards.sources.edits import EditsSource
from shards.wording.claims import change_claim

OPTIONS = {"pairs": (30, 6, 9), "size": (96, 80), "seed": 3}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in folders and sub-folders; not to be written to."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 18)
    return folder


@pytest.fixture(scope="module")
def records(photos: Path) -> list:
    return EditsSource(photos, **OPTIONS).records()


def photo_of(record) -> str:
    return record.id.rpartition("//")[0]


def test_counts_and_splits(records):
    assert Counter(record.split for record in records) == {"train": 30, "val": 6, "test": 9}
    photos = {
        split: {photo_of(record) for record in records if record.split == split} for split in ("train", "val", "test")
    }
    assert sum(map(len, photos.values())) == 18 == len(set.union(*photos.values()))
    assert [len(found) for found in photos.values()] == [12, 2, 4]
    assert len({record.key for record in records}) == len(records)
    assert any("/" in photo_of(record) for record in records)


def test_a_pair_depends_on_seed_photo_and_number_alone(photos, records, tmp_path):
    known = {record.id: (record.captions, record.truth) for record in records}
    alone = tmp_path / "alone"
    write_photos(alone, 6)
    write_photos(alone, 3, first=50)
    shutil.move(alone / "0.jpg", alone / "renamed.jpg")
    more = EditsSource(alone, **OPTIONS | {"pairs": (20, 0, 0)}).records()
    same = [record for record in more if record.id in known]
    assert same and all((record.captions, record.truth) == known[record.id] for record in same)
    for record in more:
        if record.id.startswith("renamed.jpg"):
            assert (record.captions, record.truth) == known.get(
                record.id.replace("renamed", "0"), (record.captions, record.truth)
            )
    assert {record.id for record in more} >= {"renamed.jpg//0", "renamed.jpg//1"} and "0.jpg//0" in known
    other = {record.id: record.truth for record in EditsSource(photos, **OPTIONS | {"seed": 4}).records()}
    assert sum(other.get(record.id) != record.truth for record in records) > len(records) / 2


def test_captions_state_the_truth(records):
    assert len({record.change_type for record in records}) > 5
    for record in records:
        assert record.changed == (record.change_type != "none") and record.truth["type"] == record.change_type
        for caption in record.captions:
            assert agrees(change_claim(caption), record.truth), (caption, record.truth)


def test_images_are_those_of_the_plan(photos, records):
    source = EditsSource(photos, **OPTIONS)
    for record in records[:3]:
        made = {role: decode_image(source.image(image)) for role, image in record.images.items()}
        photo = open_photo((photos / photo_of(record)).read_bytes(), OPTIONS["size"])
        _, kind, number, digest, _ = record.images["before.jpg"].split("/", 4)
        drawn = draw_pair(photo, source._plan(digest, int(number), kind), OPTIONS["size"], None)
        for pixels, image in zip(made.values(), drawn, strict=True):
            assert pixels.shape == (80, 96, 3)
            assert np.abs(pixels.astype(int) - np.asarray(image, int)).mean() < 6, "but for JPEG"
    with pytest.raises(DataError, match="replaced"):
        source.image(f"before/none/0/{'0' * 64}/{photo_of(records[0])}")


def test_no_photo_and_no_near_duplicate_is_in_two_splits(tmp_path):
    folder = tmp_path / "photos"
    originals = write_photos(folder, 15)
    for path in originals[:8]:
        copy = folder / "copies" / path.name
        copy.parent.mkdir(exist_ok=True)
        with Image.open(path) as image:
            image.resize((240, 180)).save(copy, quality=60)
    shutil.copy(originals[0], folder / "again.jpg")
    source = EditsSource(folder, **OPTIONS)
    splits: dict[str, set[str]] = {}
    for record in source.records():
        splits.setdefault(Path(photo_of(record)).name, set()).add(record.split)
    assert all(len(found) == 1 for found in splits.values()), "copies have their original's name"
    assert source.dropped == {"the same photo again": 1} and len(splits) >= 15


def test_what_is_packed_is_whole_and_no_negative_is_true(photos, tmp_path):
    arguments = ["edits", "--root", str(photos), "--pairs", "30,6,9", "--size", "96x80", "--seed", "3"]
    assert main([*arguments, "--out", str(tmp_path / "one"), "--workers", "1"]) == 0 and verify(tmp_path / "one") == []
    folder = Folder.open(tmp_path / "one")
    assert folder.manifest["options"]["pairs"] == [30, 6, 9] and folder.manifest["options"]["cutouts"] == {}
    assert folder.manifest["contradictions"] == {} and folder.manifest["denials"] == []
    for split in ("train", "test"):
        stream = folder.stream("pair", split)
        for place in range(len(stream)):
            record, _ = stream.sample(place)
            assert all(len(record["negatives"][kind]) >= 3 for kind in KINDS), record["captions"]
            for sentence in (text for texts in record["negatives"].values() for text in texts):
                assert not holds(sentence, record["truth"]), (sentence, record["truth"])


def holds(sentence: str, truth: dict) -> bool:
    """Whether a sentence is true, by all that it says: a person may call the top left "left"."""
    claim = change_claim(sentence)
    assert claim is not None, sentence
    if claim.type != truth["type"]:
        return False
    pairs = [(truth["object"] or {}, claim.object), (truth["to"] or {}, claim.to or {})]
    return all(
        set(value.split()) <= set(true[name].split()) if name == "place" else true[name] == value
        for true, said in pairs
        for name, value in said.items()
    )


@pytest.mark.slow
def test_records_are_the_same_by_any_number_of_workers(photos, records, monkeypatch):
    monkeypatch.setattr("shards.sources.edits.PHOTOS_PER_UNIT", 9)
    assert EditsSource(photos, **OPTIONS).records(workers=2) == records


def test_a_photo_that_was_replaced_is_noticed(tmp_path):
    write_photos(tmp_path, 4)
    source = EditsSource(tmp_path, pairs=(4, 0, 0), size=(96, 80))
    images = source.records()[0].images
    stamp, made = source.stamp(images["after.jpg"]), source.image(images["after.jpg"])
    assert stamp == source.stamp(images["before.jpg"]) != "" and made.startswith(b"\xff\xd8")
    made_up_photo(77).save(tmp_path / images["after.jpg"].split("/", 4)[4])
    assert source.stamp(images["after.jpg"]) != stamp
    with pytest.raises(DataError, match="replaced since it was looked at"):
        EditsSource(tmp_path, pairs=(4, 0, 0), size=(96, 80)).image(images["after.jpg"])


FORMS = {
    "sixteen.png": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
    "gray.jpg": lambda image: image.convert("L"),
    "inks.jpg": lambda image: image.convert("CMYK"),
    "palette.gif": lambda image: image.convert("P"),
    "clear.png": lambda image: image.convert("RGBA"),
    "web.webp": lambda image: image,
    "bits.tif": lambda image: image,
    "small.jpg": lambda image: image.resize((60, 50)),
    "plain.png": lambda image: Image.new("RGB", (200, 200), "gray"),
}


def test_any_format_and_what_cannot_be_used(tmp_path):
    folder = tmp_path / "photos"
    (folder / "a" / "b").mkdir(parents=True)
    for number, (name, form) in enumerate(FORMS.items()):
        form(made_up_photo(number)).save(folder / "a" / "b" / name)
    (folder / "film.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42")
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.jpg").write_bytes((folder / "a" / "b" / "gray.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes((folder / "a" / "b" / "inks.jpg").read_bytes()[:4000])
    (folder / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")
    made_up_photo(99).save(tmp_path / "elsewhere.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (folder / "a" / "circle").symlink_to(folder)
    source = EditsSource(folder, pairs=(14, 0, 0), size=(96, 80))
    records = source.records()
    assert {Path(photo_of(record)).name for record in records} == set(FORMS) - {"small.jpg", "plain.png"}
    assert sum(source.dropped.values()) == 5 == len(source.lost), source.lost
    assert "a/b/small.jpg: a photo of less than 72 by 60 pixels" in source.lost
    assert all(image.startswith(b"\xff\xd8") for image in map(source.image, records[0].images.values()))
    gray = {record.change_type for record in records if "gray.jpg" in record.id or "sixteen" in record.id}
    assert gray.isdisjoint({"gray", "saturated"})


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        (0, {}, "has no photos to edit: --root must be a folder of photos"),
        (2, {}, "has 2 different photos, too few for train and val and test: add some, or give --pairs with 0 for"),
        (2, {"pairs": (0, 0, 0)}, "pairs must be three counts"),
        (2, {"size": (9000, 10)}, "size must be"),
        (2, {"cutouts": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_made_ends_in_one_line(tmp_path, files, options, words):
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photos(folder, files)
    with pytest.raises(DataError, match=words) as caught:
        pack(EditsSource(folder, **OPTIONS | options), tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_cutouts_of_ones_own(photos, tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for name, color in (("coffee_mug.png", (90, 60, 30)), ("Red Cap.PNG", (200, 20, 20)), ("leaf.png", (20, 160, 40))):
        picture = Image.new("RGBA", (90, 70))
        picture.paste((*color, 255), (10, 10, 80, 60))
        picture.save(folder / name, "PNG")
    source = EditsSource(photos, **OPTIONS | {"cutouts": str(folder)})
    records = source.records()
    named = {record.truth["object"]["shape"] for record in records if record.truth["object"]}
    assert named == {"coffee mug", "red cap", "leaf"}
    assert "color" not in {record.change_type for record in records}
    manifest = pack(source, tmp_path / "out")
    assert set(manifest["options"]["cutouts"]) == named and verify(tmp_path / "out") == []
    for record in records:
        assert all(agrees(change_claim(text, frozenset(named)), record.truth) for text in record.captions)
    negatives = [Folder.open(tmp_path / "out").stream("pair", "train").sample(i)[0]["negatives"] for i in range(30)]
    assert any("mug" in text for lists in negatives for text in lists["replace"])
    for name, picture, words in (
        ("leaf.png", Image.new("RGB", (50, 50)), "leaf.png has no transparent pixel"),
        ("100%.png", Image.new("RGBA", (50, 50)), "rename it"),
        ("leaf.txt", Image.new("RGBA", (50, 50)), "has no .png"),
    ):
        other = tmp_path / name.replace(".", "-")
        other.mkdir()
        picture.save(other / name, "PNG")
        with pytest.raises(DataError, match=words):
            EditsSource(photos, cutouts=str(other)).describe()


def test_real_photos(shared_data, tmp_path):
    """A handful of pets: all kinds are possible of most."""
    root = tmp_path / "pets"
    paths = sorted((shared_data / "pets600").rglob("*.jpg"))[::40]
    for path in paths:
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.parent.name / path.name)
    manifest = pack(EditsSource(root, pairs=(20, 0, 10)), tmp_path / "out")
    assert manifest["splits"]["train"]["pair"] == 20 and verify(tmp_path / "out") == []
    assert sum(manifest["dropped"].values()) <= 1, manifest["dropped"]
