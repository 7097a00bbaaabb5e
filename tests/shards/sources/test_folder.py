"""Class folders, with and without splits, and what lies in them that is no photo."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import pack
from shards.sources.folder import FolderSource


@pytest.fixture
def pets(tmp_path, write_photo) -> Path:
    """Twenty photos of each of two classes."""
    root = tmp_path / "pets"
    for name in ("grey_cat", "Dog"):
        for number in range(20):
            write_photo(root / name / f"{number} ü.JPG")
    return root


def splits(root: Path) -> dict[str, str]:
    return {record.id: record.split for record in FolderSource(root).records()}


def test_real_class_folders_are_packed(shared_data, pack_root):
    root = shared_data / "pets600"
    folder, said = pack_root("folder", root, "--limit", "100")
    assert "train: 100 class\nval: 60 class\ntest: 60 class" in said
    record, members = folder.stream("class", "val").sample(0)
    assert members["photo.jpg"] == (root / record["id"]).read_bytes()
    assert folder.manifest["classes"] == ["Abyssinian", "Bengal", "american bulldog"]


def test_a_tenth_of_each_class_is_held_out_by_name(pets, tmp_path):
    divided = splits(pets)
    counts = Counter((path.partition("/")[0], split) for path, split in divided.items())
    assert {counts[name, split] for name in ("grey_cat", "Dog") for split in ("val", "test")} == {2}
    assert splits(shutil.copytree(pets, tmp_path / "copy")) == divided
    for path in pets.rglob("*.JPG"):  # the bytes have no say
        path.write_bytes((pets / "Dog" / "0 ü.JPG").read_bytes())
    assert splits(pets) == divided


def test_given_splits_are_kept_and_classes_are_those_of_all(tmp_path, write_photo):
    root = tmp_path / "pets"
    for path in ("train/cat/1.jpg", "train/dog/1.jpg", "Valid/cat/1.jpg", "test/emu/1.png"):
        write_photo(root / path, "PNG" if path.endswith("png") else "JPEG")
    write_photo(root / "notes" / "cat.jpg")
    manifest = pack(FolderSource(root), tmp_path / "out")
    assert [manifest["splits"][split]["class"] for split in ("train", "val", "test")] == [2, 1, 1]
    assert manifest["classes"] == ["cat", "dog", "emu"]
    assert manifest["dropped"] == {"a folder beside those of the splits": 1}
    assert verify(tmp_path / "out") == []


def test_a_class_may_be_called_train(tmp_path, write_photo):
    for name in ("train", "bus"):
        write_photo(tmp_path / name / "1.jpg")
    assert FolderSource(tmp_path).classes() == ["bus", "train"]


def test_what_is_no_photo_is_counted_and_listed(pets, tmp_path, write_photo):
    write_photo(tmp_path / "secret.jpg")
    (pets / "Dog" / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (pets / "Dog" / "Thumbs.db").write_bytes(b"\x00\x01")
    (pets / "Dog" / ".hidden").write_bytes(b"")
    (pets / "Dog" / "empty.jpg").write_bytes(b"")
    (pets / "Dog" / "puppies").mkdir()
    (pets / "README.txt").write_text("mine")
    os.mkfifo(pets / "Dog" / "pipe.jpg")
    with open(os.path.join(os.fsencode(pets), b"Dog", b"caf\xe9.jpg"), "wb") as file:
        file.write((tmp_path / "secret.jpg").read_bytes())
    manifest = pack(FolderSource(pets), tmp_path / "out")
    assert sum(manifest["splits"][split]["class"] for split in ("train", "val", "test")) == 40
    assert manifest["dropped"] == {
        "no photo in a known format": 1,
        "an empty file": 1,
        "a name that is not UTF-8": 1,
        "a link that leads outside the folder": 1,
        "a folder inside a class folder": 1,
        "a file beside the folders": 1,
        "no photo": 1,
    }
    source = FolderSource(pets)
    source.records()
    assert "Dog/Thumbs.db: no photo in a known format" in source.lost
    assert "Dog/'caf\\udce9.jpg': a name that is not UTF-8" in source.lost


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "CLASS/photo.jpg"),
        (("loose.jpg",), "loose.jpg: a file beside the folders"),
    ],
)
def test_a_folder_without_class_folders_ends_in_one_line(tmp_path, write_photo, files, words):
    root = tmp_path / "root"
    root.mkdir()
    for name in files:
        write_photo(root / name)
    with pytest.raises(DataError, match=words) as caught:
        pack(FolderSource(root), tmp_path / "out")
    assert "\n" not in str(caught.value) and "no photos to pack" in str(caught.value)
    with pytest.raises(DataError, match="no such folder"):
        FolderSource(tmp_path / "nowhere")
