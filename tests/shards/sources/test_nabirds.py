"""The layout of NABirds: the classes are the leaves of its tree, numbered the same for every copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import DataError
from shards.pack import main

PHOTOS = {
    "0000139e-21dc-4d0c-bfe1-4cae3c85c829": ("0817/0000139e21dc4d0cbfe14cae3c85c829.jpg", "817", "0"),
    "0000d9fc-4e02-4c06-a0af-a55cfb16b12b": ("0860/0000d9fc4e024c06a0afa55cfb16b12b.jpg", "860", "1"),
    "00019306-9d83-4334-b255-a447742edce3": ("1003/000193069d834334b255a447742edce3.jpg", "1003", "1"),
}
NAMES = ["0 Birds", "22 Perching Birds", "817 Oak Titmouse", "860 Clark's Nutcracker", "1003 Dark-eyed Junco (White)"]


@pytest.fixture
def birds(tmp_path, write_photo) -> Path:
    root = tmp_path / "nabirds"
    for path, _, _ in PHOTOS.values():
        write_photo(root / "images" / path)
    rows = PHOTOS.items()
    (root / "images.txt").write_text("".join(f"{number} {path}\n" for number, (path, _, _) in rows))
    (root / "image_class_labels.txt").write_text("".join(f"{number} {label}\n" for number, (_, label, _) in rows))
    (root / "train_test_split.txt").write_text("".join(f"{number} {flag}\n" for number, (_, _, flag) in rows))
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def test_leaves_become_classes_in_the_order_of_their_numbers(birds, pack_root):
    folder, said = pack_root("nabirds", birds)
    assert "train: 2 class" in said
    assert folder.manifest["classes"] == ["Oak Titmouse", "Clark's Nutcracker", "Dark-eyed Junco (White)"]
    junco = folder.stream("class", "train").metadata(1)
    assert junco["class_id"] == 2 and junco["source"] == "nabirds"
    assert junco["id"] == "1003/000193069d834334b255a447742edce3.jpg"


def test_a_missing_photo_does_not_renumber_the_classes(birds, pack_root):
    (birds / "images" / "0817" / "0000139e21dc4d0cbfe14cae3c85c829.jpg").unlink()
    folder, _ = pack_root("nabirds", birds)
    assert len(folder.manifest["classes"]) == 3 and sum(folder.manifest["dropped"].values()) == 1
    assert folder.stream("class", "train").metadata(0)["class_id"] == 1


def test_its_folders_do_not_name_classes(birds, tmp_path):
    (birds / "classes.txt").unlink()
    with pytest.raises(DataError, match="classes.txt is missing"):
        main(["nabirds", "--root", str(birds), "--out", str(tmp_path / "out")])
