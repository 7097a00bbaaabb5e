"""Photos of one's own pairs, to be edited: those of training alone."""

from __future__ import annotations

import json
import shutil

import pytest

from shards.edits.own_photos import write_own_photos
from shards.errors import DataError


def test_no_image_that_validation_or_test_have_is_written(tmp_path, write_photo, pack_root):
    root = tmp_path / "root"
    rows = []
    for name, split in (("a", "train"), ("b", "train"), ("c", "val"), ("d", "test")):
        images = [f"{name}1.jpg", f"{name}2.jpg"]
        for image in images:
            write_photo(root / image)
        rows.append({"before": images[0], "after": images[1], "captions": [f"the {name} has gone"], "split": split})
    (root / "a1.jpg").write_bytes((root / "c1.jpg").read_bytes())  # the same images under other names
    (root / "b2.jpg").write_bytes((root / "d2.jpg").read_bytes())
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards, _ = pack_root("pairs", root)
    photos = write_own_photos(shards, tmp_path / "photos")
    wanted = sorted((root / name).read_bytes() for name in ("a2.jpg", "b1.jpg"))
    assert sorted(path.read_bytes() for path in photos.iterdir()) == wanted
    assert write_own_photos(shards, photos) == photos and len(list(photos.iterdir())) == 2

    for name, of in (("a2.jpg", "c2.jpg"), ("b1.jpg", "d1.jpg")):
        (root / name).write_bytes((root / of).read_bytes())
    shutil.rmtree(shards.path)
    again, _ = pack_root("pairs", root)
    with pytest.raises(DataError, match="every image of its training pairs is in val or test too"):
        write_own_photos(again, tmp_path / "none")
    assert not (tmp_path / "none").exists()
