"""The data sets that can be packed, by name: one adapter each, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.format.record import Source


def whole_numbers(count: int) -> Callable[[str], tuple[int, ...]]:
    """A parser of "3600,150,250" and of "160x120": that many whole numbers."""

    def parse(text: str) -> tuple[int, ...]:
        numbers = tuple(int(part) for part in text.replace("x", ",").split(","))
        if len(numbers) != count:
            raise ValueError
        return numbers

    parse.__name__ = f"list of {count} whole numbers"
    return parse


@dataclass(frozen=True)
class Option:
    """An option of a source on the command line: "--class-photos" becomes the keyword class_photos of its class."""

    flag: str
    help: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None

    @property
    def keyword(self) -> str:
        """The argument's name in Python."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class Adapter:
    """Where a source's class is, what its --root must hold (None: it needs no folder), and its own options.

    The class is called with the root, where there is one, and the options that were given as keywords. What it holds
    may be drawn: then --seed is its own, too.
    """

    module: str
    class_name: str
    root: str | None
    options: tuple[Option, ...] = ()
    drawn: bool = False


_SIZE = Option("--size", "of the images in pixels (default: 336x224), of edits 224x224", "WxH", whole_numbers(2))

SOURCES: dict[str, Adapter] = {
    "blocks": Adapter(
        "shards.sources.blocks",
        "BlocksSource",
        root=None,
        options=(
            Option("--scenes", "scenes in each split (default: 4000,250,500)", "TRAIN,VAL,TEST", whole_numbers(3)),
            _SIZE,
            Option("--supersample", "rays along each side of a pixel (default: 1)", "N", int),
            Option("--relational", "of captions that refer by place (default: 0.0)", "SHARE", float),
            Option("--class-photos", "photos of each class (default: 40)", "N", int),
            Option(
                "--camera",
                "by how much its place varies along each axis in the train split; 1 in the others (default: 1.0)",
                "LENGTH",
                float,
            ),
        ),
        drawn=True,
    ),
    "birds_to_words": Adapter(
        "shards.sources.birds_to_words", "BirdsToWordsSource", root="birds-to-words-v1.0.tsv and images/ID.jpg"
    ),
    "clevr_change": Adapter(
        "shards.sources.clevr_change", "ClevrChangeSource", root="images/, sc_images/ and change_captions.json"
    ),
    "image_editing_request": Adapter(
        "shards.sources.image_editing_request",
        "ImageEditingRequestSource",
        root="train.json, valid.json, test.json and images/",
    ),
    "levir_cc": Adapter("shards.sources.levir_cc", "LevirCcSource", root="LevirCCcaptions.json and images/"),
    "spot_the_diff": Adapter(
        "shards.sources.spot_the_diff",
        "SpotTheDiffSource",
        root="train.json, val.json, test.json and images/",
        options=(
            Option(
                "--protocol",
                "single: each sentence is a reference (default); multi: each paragraph is one",
                choices=("single", "multi"),
            ),
        ),
    ),
    "cub": Adapter("shards.sources.cub", "CubSource", root="images/, images.txt and the other tables of CUB-200-2011"),
    "nabirds": Adapter("shards.sources.nabirds", "NABirdsSource", root="images/, images.txt and the other tables"),
    "folder": Adapter("shards.sources.folder", "FolderSource", root="photos in class folders: CLASS/photo.jpg"),
    "pairs": Adapter(
        "shards.sources.pairs",
        "PairsSource",
        root="the photos and a table of pairs (.jsonl or .csv)",
        options=(Option("--table", "inside the root (default: the one .jsonl or .csv there)", "FILE"),),
    ),
    "edits": Adapter(
        "shards.sources.edits",
        "EditsSource",
        root="photos, in sub-folders or not",
        options=(
            Option("--pairs", "in each split (default: 2000,200,500)", "TRAIN,VAL,TEST", whole_numbers(3)),
            _SIZE,
            Option("--cutouts", "PNGs with transparency to paste (default: shapes and glyphs)", "DIR"),
        ),
        drawn=True,
    ),
}


def make_source(name: str, root: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Source:
    """The source called `name`, read from the folder `root` (blocks: rendered), with options by keyword.

    Raises DataError for a name that is not known, a folder that is missing or options that do not belong to the source.
    """
    options = dict(options or {})
    adapter = SOURCES.get(name)
    if adapter is None:
        raise DataError(f"no source {name!r}: choose one of {', '.join(SOURCES)}")
    if adapter.root is None and root is not None:
        raise DataError(f"--root does not fit {name}: its scenes are rendered, not read; leave --root out")
    if adapter.root is not None and root is None:
        raise DataError(f"{name} needs --root DIR: the folder that has {adapter.root}")
    known = {option.keyword for option in adapter.options} | ({"seed"} if adapter.drawn else set())
    for keyword in options:
        if keyword not in known:
            owners = [other for other, it in SOURCES.items() if keyword in {option.keyword for option in it.options}]
            flag = "--" + keyword.replace("_", "-")
            raise DataError(f"{flag}: only {', '.join(owners) or 'blocks'} has this, {name} has not; leave it out")
    # Adapters are imported when they are needed: the renderer of blocks compiles on import.
    make = getattr(importlib.import_module(adapter.module), adapter.class_name)
    return make(**options) if root is None else make(Path(root), **options)
