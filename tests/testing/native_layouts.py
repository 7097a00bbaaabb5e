"""Small copies of the published data sets, in the layouts they are published in: generated pictures and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = ("red", "blue", "green", "gray", "yellow", "brown")
PARTS = ("wings", "belly", "beak", "tail", "crown")
SIZE = (96, 64)
TRAIN, HELD_OUT = 12, 4  # scenes, pairs or photos of the train split, and of each of the others
SPLITS = {"train": range(TRAIN), "val": range(TRAIN, TRAIN + HELD_OUT), "test": range(TRAIN + HELD_OUT, TRAIN + 8)}


def write_picture(path: Path, seed: int) -> None:
    """A JPEG with a few patches of colour, whatever the ending of its name; CLEVR-Change copies are like that."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(SIZE, Image.Resampling.NEAREST).save(path, "JPEG")


def _bird(number: int, animal: str) -> str:
    color, other = COLORS[number % 6], COLORS[(number + 2) % 6]
    return f"{animal} has {color} {PARTS[number % 5]} and a {other} {PARTS[(number + 1) % 5]}"


def clevr_change(root: Path) -> None:
    """Scenes with a change of colour and without; two pairs each."""
    changed, unchanged = {}, {}
    for number in (number for numbers in SPLITS.values() for number in numbers):
        for view, folder in (("default", "images"), ("semantic", "sc_images"), ("nonsemantic", "nsc_images")):
            write_picture(root / folder / f"CLEVR_{view}_{number:06d}.png", number + 100 * (view == "semantic"))
        name, color, other = f"CLEVR_default_{number:06d}.png", COLORS[number % 6], COLORS[(number + 1) % 6]
        changed[name] = [f"the small {color} rubber cube turned {other}", f"the {color} cube became {other}"]
        unchanged[name] = ["no change was made", "the scene is the same as before"]
    tables = {
        "change_captions": changed,
        "no_change_captions": unchanged,
        "splits": {split: list(numbers) for split, numbers in SPLITS.items()},
        "type_mapping": {"color": [f"{number:06d}.png" for numbers in SPLITS.values() for number in numbers]},
    }
    for name, table in tables.items():
        (root / f"{name}.json").write_text(json.dumps(table))


def pairs(root: Path) -> None:
    """Anybody's own pairs: a line of JSON each, with two captions."""
    lines = []
    for split, numbers in SPLITS.items():
        for number in numbers:
            photos = {role: f"photos/{role}-{number}.jpg" for role in ("before", "after")}
            for role, photo in photos.items():
                write_picture(root / photo, number + 100 * (role == "after"))
            texts = [f"the {color} door is {'open' if number % 2 else 'shut'}" for color in COLORS[number % 2 :: 2][:2]]
            lines.append(json.dumps(photos | {"captions": texts, "split": split}))
    (root / "pairs.jsonl").write_text("\n".join(lines) + "\n")


def birds_to_words(root: Path) -> None:
    """Pairs with two paragraphs each, in the table of 11 columns."""
    rows = []
    for split, numbers in SPLITS.items():
        for number in numbers:
            birds = []
            for photo in (1000 + number, 2000 + number):
                write_picture(root / "images" / f"{photo}.jpg", photo)
                address = f"https://static.inaturalist.org/photos/{photo}/large.jpg"
                birds += ["https://www.inaturalist.org/observations/1", address, "Ara ararauna", "visual"]
            for k in range(2):
                text = f"{_bird(number + k, 'animal1')} , while {_bird(number + k + 3, 'animal2')} ."
                rows.append([*birds, split, str(k), text])
    (root / "birds-to-words-v1.0.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")


def cub(root: Path, classes: int = 3, sentences: bool = True) -> None:
    """Photos of classes, in the tables of CUB-200-2011, and what is said about each."""
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "classes")
    }
    for number in range(TRAIN + HELD_OUT):
        label = number % classes
        photo = f"{label + 1:03d}.Grebe_{label}/Grebe_{number:04d}.jpg"
        write_picture(root / "images" / photo, 3000 + label)
        tables["images"].append(f"{number + 1} {photo}")
        tables["image_class_labels"].append(f"{number + 1} {label + 1}")
        tables["train_test_split"].append(f"{number + 1} {int(number < TRAIN)}")
        if sentences:
            text = root / "text_c10" / Path(photo).with_suffix(".txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(f"{_bird(number, 'this grebe')} .\n{_bird(number + 1, 'a plump bird')} .\n")
    tables["classes"] = [f"{label + 1} {label + 1:03d}.Grebe_{label}" for label in range(classes)]
    for name, lines in tables.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def nabirds(root: Path) -> None:
    """Photos of four classes without sentences."""
    cub(root, classes=4, sentences=False)


def spot_the_diff(root: Path) -> None:
    """Two frames of a lot; one or two sentences."""
    for split, numbers in SPLITS.items():
        entries = []
        for number in numbers:
            for ending in ("", "_2"):
                write_picture(root / "images" / f"{number}{ending}.png", 4000 + number + 100 * len(ending))
            gone = f"the {COLORS[number % 6]} car is gone"
            entries.append({"img_id": str(number), "sentences": [gone, "a man walks on the left"][: 1 + number % 2]})
        (root / f"{split}.json").write_text(json.dumps(entries))


def image_editing_request(root: Path) -> None:
    """A photo, its edit, and what was asked for."""
    for split, numbers in {"train": SPLITS["train"], "valid": SPLITS["val"], "test": SPLITS["test"]}.items():
        entries = []
        for number in numbers:
            names = [f"{number}_{side}.jpg" for side in (0, 1)]
            for side, name in enumerate(names):
                write_picture(root / "images" / name, 5000 + number + 100 * side)
            wishes = [f"make the sky more {COLORS[number % 6]}", f"remove the {COLORS[(number + 1) % 6]} car"]
            entries.append({"uid": f"u{number}", "img0": names[0], "img1": names[1], "sents": wishes})
        (root / f"{split}.json").write_text(json.dumps(entries))
