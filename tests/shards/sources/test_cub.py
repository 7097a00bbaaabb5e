"""The layout of CUB-200-2011: the real sample, and a small copy with sentences and with damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources import make_source
from shards.sources.cub import CubSource

PHOTOS = {  # id -> path, class, 1 for train
    "1": ("001.Black_footed_Albatross/Black_0001_79.jpg", "1", "0"),
    "2": ("001.Black_footed_Albatross/Black_0002_55.jpg", "1", "1"),
    "3": ("010.Groove_billed_Ani/Groove_0003_81.jpg", "10", "1"),
    "4": ("002.Laysan_Albatross/Laysan_0004_11.jpg", "2", "1"),
}
TABLES = {
    "images.txt": [f"{number} {path}" for number, (path, _, _) in PHOTOS.items()],
    "image_class_labels.txt": [f"{number} {label}" for number, (_, label, _) in PHOTOS.items()],
    "train_test_split.txt": [f"{number} {flag}" for number, (_, _, flag) in PHOTOS.items()],
    "classes.txt": ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross", "10 010.Groove_billed_Ani", "11 011.Auk"],
}


@pytest.fixture
def birds(tmp_path, write_photo) -> Path:
    """Four photos of three classes; all but the last have sentences."""
    root = tmp_path / "birds"
    for path, _, _ in PHOTOS.values():
        write_photo(root / "images" / path)
    for name, lines in TABLES.items():
        (root / name).write_text("\n".join(lines) + "\n")
    for path, _, _ in list(PHOTOS.values())[:3]:
        text = root / "text_c10" / Path(path).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"a bird of {path[:3]}\ufffd with a long beak .\r\n\n  the bird   is dark .\n")
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


@pytest.mark.slow
def test_the_real_sample_is_packed_with_its_own_bytes(shared_data, pack_root):
    sample = shared_data / "cub50"
    folder, said = pack_root("cub", sample, "--limit", "40")
    assert "test: 40 class" in said
    stream = folder.stream("class", "train")
    record, members = stream.sample(0)
    assert members["photo.jpg"] == (sample / "images" / record["id"]).read_bytes()
    assert record["class_name"] == "Black footed Albatross" and record["class_id"] == 0
    source = CubSource(sample)
    assert len(source.records()) == 2889 and source.dropped == {}
    assert len(source.classes()) == 50 and source.classes()[-1] == "Eared Grebe"


def test_a_photo_with_sentences_gives_a_class_and_a_photo_sample(birds, tmp_path):
    manifest = pack(CubSource(birds), tmp_path / "out", negatives=1)
    assert manifest["splits"]["train"] == {"pair": 0, "photo": 2, "class": 3}
    assert manifest["splits"]["test"] == {"pair": 0, "photo": 1, "class": 1}
    assert manifest["classes"] == ["Black footed Albatross", "Laysan Albatross", "Groove billed Ani"]
    assert manifest["dropped"] == {"no sentences": 1}
    assert verify(tmp_path / "out") == []
    folder = Folder.open(tmp_path / "out")
    photos = folder.stream("photo", "train")
    assert photos.metadata(photos.find("photo-3"))["captions"] == [
        "a bird of 010 with a long beak .",
        "the bird is dark .",
    ]
    classes = folder.stream("class", "train")
    assert classes.metadata(classes.find("class-3"))["class_id"] == 2


def test_without_their_table_classes_are_called_after_the_folders(birds):
    expected = CubSource(birds).records()
    (birds / "classes.txt").unlink()
    source = CubSource(birds)
    assert source.classes() == ["Black footed Albatross", "Laysan Albatross", "Groove billed Ani"]
    assert source.records() == expected and "annotations_sha256" in source.describe()


def test_what_is_missing_is_counted_and_listed(birds):
    (birds / "images" / PHOTOS["1"][0]).unlink()
    (birds / "images" / PHOTOS["2"][0]).write_text("<html>not found</html>")
    (birds / "text_c10" / PHOTOS["3"][0]).with_suffix(".txt").write_bytes(b"caf\xe9")
    edit(birds, "image_class_labels.txt", "4 2\n", "")
    source = CubSource(birds)
    assert [record.key for record in source.records()] == ["class-3"]
    assert len(source.lost) == 4 and sum(source.dropped.values()) == 4
    assert f"{PHOTOS['4'][0]}: no class in image_class_labels.txt" in source.lost
    assert [line for line in source.lost if "UTF-8" in line and line.startswith(PHOTOS["3"][0])]
    assert source.dropped["sentences that cannot be read"] == 1


def test_a_folder_called_like_a_file_of_sentences_is_none(birds):
    path = (birds / "text_c10" / PHOTOS["3"][0]).with_suffix(".txt")
    path.unlink()
    path.mkdir()
    source = CubSource(birds)
    assert "captions_sha256" in source.describe()
    source.records()
    assert f"{PHOTOS['3'][0]}: no sentences (its class sample is there)" in source.lost


def test_classes_without_a_name_and_splits_that_are_neither_are_counted(birds):
    edit(birds, "image_class_labels.txt", "4 2", "4 77")
    edit(birds, "train_test_split.txt", "3 1", "3 yes")
    source = CubSource(birds)
    assert {record.id for record in source.records()} == {PHOTOS["1"][0], PHOTOS["2"][0]}
    assert source.dropped == {
        "its class is not in classes.txt": 1,
        "neither 0 nor 1 in train_test_split.txt": 1,
    }


def test_the_place_of_the_folder_does_not_matter_but_its_text_does(birds, tmp_path):
    described = CubSource(birds).describe()
    assert CubSource(shutil.copytree(birds, tmp_path / "copy")).describe() == described
    edit(birds, f"text_c10/{Path(PHOTOS['3'][0]).with_suffix('.txt')}", "dark", "light")
    assert CubSource(birds).describe() != described


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: shutil.rmtree(root / "images"), "images is missing"),
        (lambda root: (root / "images.txt").unlink(), "images.txt is missing"),
        (lambda root: edit(root, "images.txt", "2 001", "1 001"), "images.txt, line 2: the id 1 comes again"),
        (lambda root: edit(root, "train_test_split.txt", "2 1", "2"), "train_test_split.txt, line 2: '2' stands alone"),
        (lambda root: edit(root, "images.txt", "2 001", "../2 001"), "images.txt, line 2: '../2' is no id"),
        (lambda root: edit(root, "images.txt", PHOTOS["2"][0], "../../secret.jpg"), "secret.jpg' leads outside"),
        (lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe1\x00"), "classes.txt is not UTF-8"),
        (lambda root: (root / "images.txt").write_text(""), "has no samples"),
    ],
)
def test_a_folder_of_another_form_ends_in_one_line(birds, tmp_path, damage, words):
    damage(birds)
    with pytest.raises(DataError, match=words) as caught:
        pack(make_source("cub", birds), tmp_path / "out")
    assert "\n" not in str(caught.value)
