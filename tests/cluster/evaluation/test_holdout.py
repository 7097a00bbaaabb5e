"""--evaluate.split holdout: scenes that no choice was read off, packed beside the run's own when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.pipeline import _evaluation
from cluster.prepare import prepare_evaluation
from shards.check import main as audit
from shards.errors import DataError
from shards.reading.reader import Folder


def test_they_are_packed_where_missing_and_kept_apart(tiny: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shards.sources.blocks.HOLDOUT_SCENES", 4)
    before = {path: path.read_bytes() for path in tiny.shards.iterdir()}
    config = tiny.with_options(evaluate__split="holdout", data__shards=str(tiny.shards))
    made = prepare_evaluation(config, tiny.root, None)
    assert made.shards.path == tiny.shards.with_name("tiny-holdout")
    assert made.shards.manifest["splits"]["test"]["pair"] == 8 and made.shards.manifest["options"]["holdout"] == 4
    mine, own = (folder.manifest["features"] for folder in (made.features, Folder.open(tiny.features)))
    assert {**mine, "of": ""} == {**own, "of": ""}
    assert {path: path.read_bytes() for path in tiny.shards.iterdir()} == before

    asked = _evaluation(tmp_path / "run", config, made)
    assert asked.split == "test" and asked.predictions.parent == tmp_path / "run" / "evaluations" / "tiny-holdout-test"
    assert audit([str(tiny.shards), str(made.shards.path)]) == 0, "no picture is in two of them"

    times = {path: path.stat().st_mtime_ns for path in made.shards.path.iterdir()}
    again = prepare_evaluation(config, tiny.root, None)
    assert again.shards.sha256() == made.shards.sha256()
    assert {path: path.stat().st_mtime_ns for path in made.shards.path.iterdir()} == times
    other = tiny.with_options(evaluate__split="holdout", data__shards=str(tiny.shards), data__blocks__size="80,48")
    with pytest.raises(DataError, match="tiny-holdout was packed with size"):
        prepare_evaluation(other, tiny.root, None)
