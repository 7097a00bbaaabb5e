"""Photos and classes of other folders than the pairs: who gives what, and one vocabulary for all captions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from testing import native_layouts
from testing.native_layouts import TRAIN

from cluster.batches.batches import Batches, StepBatch
from cluster.config.fields import Config
from cluster.config.options import override
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.prepare import Training, prepare_training, with_sizes
from cluster.recipes.registry import RECIPES
from cluster.training.weights import open_tokenizer
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources import make_source

PAIRS = ("mlm", "mvcl", "fda")
PHOTOS = ("photo_mlm", "photo_mvcl", "photo_fda")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of birds, captioned photos and class-labelled photos, each packed by itself."""
    root = tmp_path_factory.mktemp("expansion")
    for name in ("birds_to_words", "cub", "nabirds"):
        getattr(native_layouts, name)(root / "native" / name)
        pack(make_source(name, root / "native" / name), root / "data" / name, tokenizer="words")
    return root


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    """The recipe `birds_to_words` at the size of its data."""
    cut = {"backbone.name": "efficientnet_lite0", "backbone.strides": "", "backbone.size": "48,64",
           "model.d_model": "16", "model.heads": "2", "data.pack_workers": "1"}  # fmt: skip
    for stage in ("cub", "birds", "finetune"):
        cut |= {f"{stage}.global_batch_size": "8", f"{stage}.micro_batch_size": "8", f"{stage}.contrastive_group": "2",
                f"{stage}.steps": "12", f"{stage}.batch_sizes": ""}  # fmt: skip
    return override(dataclasses.replace(RECIPES["birds_to_words"](), root=str(root)), cut.items())


@pytest.fixture(scope="module")
def training(config: Config, root: Path) -> Training:
    return prepare_training(config, root)


def batches(config: Config, training: Training, task: str, rank: int = 0, world: int = 1) -> Batches:
    sized = with_sizes(config, training)
    stage = dataclasses.replace(config.stage("birds"), ratios={task: 1.0})
    tokenizer = open_tokenizer(training.data.shards.location, training.tokenizer)
    further = (training.photos and training.photos.place, training.classes and training.classes.place)
    place = training.data.place
    return Batches(
        place.shards, place.features, tokenizer, sized.model, 12, stage, 5, rank, world, training.mixed, *further
    )


def test_each_kind_comes_from_its_own_folder(config: Config, training: Training) -> None:
    for tasks, stream in (
        (PAIRS, "pair samples of train in birds_to_words"),
        (PHOTOS, "photo samples of train in cub"),
        (("classify",), "class samples of train in nabirds"),
    ):
        for task in tasks:
            assert batches(config, training, task).sizes == {stream: TRAIN}
    model = with_sizes(config, training).model
    assert model.classes == 4, "NABirds has four classes here, CUB three"
    photo = training.photos.shards.stream("photo", "train").metadata(0)["captions"][0]
    known = open_tokenizer(training.data.shards.location, training.tokenizer)
    (part,) = batches(config, training, "photo_mlm").step(0).micro_batches
    words = {word for row in part["caption_masked"] for word in known.decode(row[1:]).split()}
    assert "grebe" in photo and words & {"grebe", "plump"}, (
        "what is said of photos alone, and not masked in all of them"
    )


def test_one_tokenizer_knows_the_words_of_all_captions(config: Config, root: Path, training: Training) -> None:
    tokenizer = open_tokenizer(training.data.shards.location, training.tokenizer)
    assert with_sizes(config, training).model.vocab_size == tokenizer.size
    for name, kind in (("birds_to_words", "pair"), ("cub", "photo")):
        stream = Folder.open(root / "data" / name).stream(kind, "train")
        for caption in (caption for i in range(len(stream)) for caption in stream.metadata(i)["captions"]):
            assert tokenizer.decode(tokenizer.encode(caption)) == caption
    own = open_tokenizer(training.data.shards.location)
    assert "<unk>" in own.decode(own.encode("grebe")) and own.size < tokenizer.size


def test_the_tokenizer_is_made_once_for_the_same_captions(config: Config, root: Path, training: Training) -> None:
    written = training.tokenizer.stat().st_mtime_ns
    assert prepare_training(config, root).tokenizer == training.tokenizer
    assert training.tokenizer.stat().st_mtime_ns == written
    pieces = prepare_training(override(config, [("data.tokenizer", "sentencepiece")]), root).tokenizer
    assert pieces.suffix == ".model" and pieces.parent != training.tokenizer.parent
    assert [path.name for path in (root / "data" / "tokenizers").iterdir() if "partial" in path.name] == []


def test_pairs_alone_keep_the_tokenizer_of_their_folder(config: Config, root: Path) -> None:
    alone = override(config, [("data.photos", ""), ("data.classes", "data/nabirds")])
    assert prepare_training(alone, root).tokenizer is None


def rows(batch: StepBatch, name: str) -> list[bytes]:
    return [row.numpy().tobytes() for part in batch.micro_batches for row in part[name]]


@pytest.mark.parametrize(("task", "role"), [("photo_fda", "photo"), ("classify", "before")])
def test_any_number_of_ranks_sees_the_same_photos(config: Config, training: Training, task: str, role: str) -> None:
    alone = batches(config, training, task)
    ranks = [batches(config, training, task, rank, 2) for rank in range(2)]
    for step in (5, 1):
        assert sorted(rows(alone.step(step), role)) == sorted(
            row for parts in ranks for row in rows(parts.step(step), role)
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.photos": "data/none"}, "--data.photos .*data/none: no such folder; make it with"),
        ({"data.photos": "data/nabirds"}, "--data.photos data/nabirds: .* has no photo samples in train; leave it out"),
        ({"data.classes": "data/birds_to_words"}, "--data.classes .* has no class samples in train; leave it out"),
    ],
)
def test_folders_without_what_is_asked_of_them_are_refused(
    config: Config, root: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare_training(override(config, changes.items()), root)


def test_a_task_without_samples_names_the_option(config: Config, root: Path) -> None:
    alone = override(config, [("data.photos", "")])
    with pytest.raises(ConfigError, match="--cub.ratios.photo_mlm needs photo samples .* with --data.photos"):
        with_sizes(alone, prepare_training(alone, root))


def test_two_folders_of_one_name_are_refused(tiny: Any) -> None:
    validate(tiny.with_options(data__photos="data/tiny", data__classes="data/tiny/"))
    validate(tiny.with_options(data__photos="data/cub", data__classes="data/cub"))
    with pytest.raises(ConfigError, match="--data.classes elsewhere/tiny: another folder is called tiny too"):
        validate(tiny.with_options(data__classes="elsewhere/tiny"))
    with pytest.raises(ConfigError, match="--data.classes b/cub: another folder is called cub too"):
        validate(tiny.with_options(data__photos="a/cub", data__classes="b/cub"))
