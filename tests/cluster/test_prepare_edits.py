"""The recipe `edits`: shards that are missing are packed from a folder of photos."""

from __future__ import annotations

from pathlib import Path

import pytest
from testing import native_layouts
from testing.photos import write_photos

from cluster.errors import ConfigError
from cluster.prepare import prepare_training, with_sizes
from cluster.recipes.commandline import parse
from cluster.recipes.sizes import with_sizes_of
from shards.errors import DataError
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources.pairs import PairsSource

SMALL = "--data.edits.pairs 40,4,4 --data.edits.size 96,80 --data.pack_workers 1 --backbone.size 64,64".split()


def prepared(root: Path, *options: str):
    config = parse(["edits", "--root", str(root), *SMALL, *options]).config
    return with_sizes(config, prepare_training(config, root))


@pytest.mark.slow
def test_what_is_missing_is_packed_and_other_options_are_refused(tmp_path):
    photos = tmp_path / "photos"
    write_photos(photos, 12)
    asked = parse(["edits", "--root", str(tmp_path), *SMALL, "--data.edits.photos", "photos"]).config
    sized = with_sizes_of(asked, "edits", (), tmp_path)
    assert sized.finetune.steps < asked.finetune.steps, "of 40 pairs, before they are there"
    config = prepared(tmp_path, "--data.edits.photos", "photos", "--data.words", "20")
    assert with_sizes_of(asked, "edits", (), tmp_path) == sized, "and the same when they are: the run can go on"
    assert config.model.classes > 5 and config.model.attributes
    folder = Folder.open(tmp_path / "data" / "edits")
    assert folder.manifest["splits"]["train"]["pair"] == 40 and folder.manifest["source"] == "edits"
    with pytest.raises(ConfigError, match="packed with 0 for --data.edits.seed, which is 1"):
        prepared(tmp_path, "--data.edits.photos", "photos", "--data.edits.seed", "1")
    small = ["--root", str(tmp_path), "--backbone.size", "64,64", "--data.pack_workers", "1"]
    whole = parse(["edits", *small]).config
    assert prepare_training(whole, tmp_path).data.shards.sha256() == folder.sha256(), "packed by hand, as it is"

    native_layouts.pairs(tmp_path / "own")
    pack(PairsSource(tmp_path / "own"), tmp_path / "data" / "pairs")
    training = prepare_training(parse(["pairs", *small, "--data.mix", "data/edits=1"]).config, tmp_path)
    assert [mixed.shards for mixed in training.mixed] == [folder.path] and training.tokenizer is not None
    assert {"door", "triangle"} <= set(training.names), "of the captions of both"


def test_without_photos_it_says_what_to_name(tmp_path):
    config = parse(["edits", "--root", str(tmp_path)]).config
    with pytest.raises(ConfigError, match="--data.edits.photos is empty") as caught:
        prepare_training(config, tmp_path)
    assert "python -m shards.pack edits --root PHOTOS --out" in str(caught.value)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepared(tmp_path, "--data.edits.photos", "nowhere")
    with pytest.raises(ConfigError, match="no effect: --data.edits.photos is empty"):
        parse(["edits", "--data.edits.seed", "3"])
    with pytest.raises(ConfigError, match="--data.edits.pairs 0,1,1 has none to train on"):
        parse(["edits", "--data.edits.photos", "x", "--data.edits.pairs", "0,1,1"])
