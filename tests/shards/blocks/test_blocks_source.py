"""The source: records that can be packed, the same for any number of processes, and the images they name."""

import dataclasses
import hashlib
import io
import json
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from shards.blocks.grammar import agrees, parse
from shards.blocks.scenes import CAMERA_BASE, IMAGES
from shards.errors import DataError
from shards.images import masks
from shards.sources.blocks import HOLDOUT, SPLITS, BlocksHoldout, BlocksOptions, BlocksSource, scene_index

OPTIONS = dict(seed=5, scenes=(130, 20, 30), class_photos=6, relational=0.2)


@pytest.fixture(scope="module")
def source():
    return BlocksSource(**OPTIONS)


@pytest.fixture(scope="module")
def records(source):
    return source.records(1)


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_processes(records):
    assert BlocksSource(**OPTIONS).records(2) == records


def test_counts_and_keys(records):
    count = Counter((record.kind, record.split) for record in records)
    assert count["pair", "val"] == 2 * 20 and count["pair", "test"] == 2 * 30
    assert 3 * 130 < count["pair", "train"] <= 4 * 130
    assert count["photo", "train"] == 130
    assert count["class", "train"] == 96 * 6 and count["class", "val"] == 96 * 2
    assert set(count) == {("pair", "train"), ("pair", "val"), ("pair", "test"), ("photo", "train"),
                          ("class", "train"), ("class", "val")}  # fmt: skip
    assert len({record.key for record in records}) == len(records)
    assert not any(set(record.key) & set("./ ") for record in records)


def test_more_scenes_leave_the_first_ones_as_they_are(records):
    more = {record.key: record for record in BlocksSource(**{**OPTIONS, "scenes": (140, 25, 30)}).records(1)}
    assert all(more[record.key] == record for record in records)


def test_pairs_carry_their_truth(records):
    for record in records:
        if record.kind == "pair":
            assert record.changed == (record.truth["type"] != "none")
            assert record.change_type == record.truth["type"]
            assert all(agrees(parse(caption), record.truth) for caption in record.captions)
        else:
            assert record.truth is None and record.changed is None


def test_truth_has_the_pixels_of_the_changed_object(records, source):
    """They are where the images differ most, and none are in an image that does not have the object."""
    width, height = source.options.size
    seen = Counter()
    for record in records:
        if record.split != "test" or not record.changed:
            continue
        kind, pixels = record.change_type, record.truth["pixels"]
        assert pixels["size"] == [height, width]
        shown = {role: masks.decode(pixels[role], height, width) for role in ("before", "after")}
        assert shown["before"].any() == (kind != "add") and shown["after"].any() == (kind != "drop")
        for mask in shown.values():
            assert not mask.any() or mask.sum() * (320 / width) ** 2 >= 200
        seen[kind] += 1
        if kind == "color":  # its pixels have another mean colour than in the other image
            before, after = (
                np.asarray(Image.open(io.BytesIO(source.image(record.images[f"{role}.jpg"]))))[shown[role]].mean(0)
                for role in ("before", "after")
            )
            assert np.abs(before - after).max() > 12
    assert len(seen) == 5


def test_units_hold_what_shares_images(records):
    unit_of = {}
    for record in records:
        for image in record.images.values():
            assert unit_of.setdefault(image, (record.split, record.unit)) == (record.split, record.unit)
    train = [record.unit for record in records if (record.kind, record.split) == ("class", "train")]
    assert Counter(train) == {0: 4 * 96, 1: 2 * 96}


def test_classes(source, records):
    names = source.classes()
    assert len(names) == 96
    for record in records:
        if record.kind == "class":
            assert names[record.class_id] == record.class_name


def test_images_are_jpegs_of_the_right_size_and_survive_pickling(source, records):
    chosen = [next(record for record in records if record.kind == kind) for kind in ("pair", "photo", "class")]
    again = pickle.loads(pickle.dumps(source))
    for record in chosen:
        for image_id in record.images.values():
            data = source.image(image_id)
            assert data == again.image(image_id) == source.image(image_id)
            picture = Image.open(io.BytesIO(data))
            assert picture.format == "JPEG" and picture.size == (336, 224)
    before, after = (np.asarray(Image.open(io.BytesIO(source.image(i)))) for i in chosen[0].images.values())
    assert np.abs(before.astype(int) - after).mean() > 1


def test_cameras_of_training_alone_vary_as_asked(source):
    wide = BlocksSource(**OPTIONS, camera=2.0)
    usual = np.array(CAMERA_BASE)
    for split in ("val", "test"):
        assert all(wide.scene(f"{split}-3/{image}") == source.scene(f"{split}-3/{image}") for image in IMAGES)
    for one, reach in ((source, 1.0), (wide, 2.0)):
        found = {image: np.array([one.scene(f"train-{i}/{image}").camera for i in range(40)]) for image in IMAGES}
        found["class"] = np.array([one.scene(f"class-train/{i}/0").camera for i in range(40)])
        for image, places in found.items():
            moved = np.abs(places - (found["before"] if image in ("after", "distractor") else usual))
            assert 0.8 * reach < moved.max() <= reach


@pytest.mark.parametrize("image_id", ["", "train-1", "train-1/side", "dev-1/before", "class-train/96/0", "class-x/1/1"])
def test_unknown_images_are_refused(source, image_id):
    with pytest.raises(DataError, match="no image"):
        source.image(image_id)


@pytest.mark.parametrize(
    "options",
    [dict(scenes=(1, 2)), dict(scenes=(-1, 0, 0)), dict(size=(0, 120)), dict(size=(1000, 100)), dict(relational=2.0),
     dict(camera=2.5), dict(camera=-1.0),
     dict(supersample=0), dict(class_photos=-1), dict(seed=-1)],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(DataError, match=next(iter(options))):
        BlocksSource(**options)


def test_records_and_scenes_are_those_of_every_version():
    """A digest from before scenes were held out. A run that was trained on them goes on with no others."""
    source = BlocksSource(seed=0, scenes=(6, 4, 5), size=(64, 48), class_photos=2, camera=2.0)
    digest = hashlib.sha256()
    for record in source.records(1):
        digest.update(json.dumps(dataclasses.asdict(record), sort_keys=True).encode())
        digest.update("".join(repr(source.scene(image)) for image in record.images.values()).encode())
    assert digest.hexdigest() == "9ca87c75ad3a3f303e60ecfdc7ab746f9cc46528ef0e652476daf439d1a2b7db"


@pytest.fixture(scope="module")
def held_out():
    return BlocksHoldout(**OPTIONS | {"size": (64, 48)})


def test_held_out_scenes_are_drawn_by_no_split_with_any_options(held_out):
    most = BlocksOptions(scenes=(9_999_999,) * 3).scenes  # the largest that options may ask for
    indices = {
        split: (scene_index(split, 0), scene_index(split, count - 1)) for split, count in zip(SPLITS, most, strict=True)
    }
    first = scene_index(HOLDOUT, 0)
    assert max(last for _, last in indices.values()) < first == scene_index(HOLDOUT, 899) - 899
    with pytest.raises(DataError, match="scenes"):
        BlocksOptions(scenes=(0, 0, most[2] + 1))
    same = BlocksSource(**OPTIONS | {"size": (64, 48)})
    drawn = {same.scene(f"{split}-{number}/before") for split in SPLITS for number in range(20)}
    assert drawn.isdisjoint(held_out.scene(f"holdout-{number}/before") for number in range(20))


@pytest.mark.slow
def test_held_out_are_1800_pairs_of_900_scenes_the_same_each_time(held_out):
    records = held_out.records(2)
    assert len(records) == 1800 and {(record.kind, record.split) for record in records} == {("pair", "test")}
    assert len({record.key.rpartition("-")[0].rpartition("-")[0] for record in records}) == 900
    assert Counter(record.changed for record in records) == {True: 900, False: 900}
    again = BlocksHoldout(**OPTIONS | {"size": (64, 48), "scenes": (7, 0, 0), "camera": 2.0, "class_photos": 9})
    assert again.describe() == held_out.describe() | {"holdout": 900}
    assert again.image(records[0].images["after.jpg"]) == held_out.image(records[0].images["after.jpg"])
    some = [record for record in BlocksHoldout(**OPTIONS | {"size": (64, 48)}).records(1) if record.unit == 8]
    assert some == [record for record in records if record.unit == 8]
