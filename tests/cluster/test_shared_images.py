"""Images that training and test share are told before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cluster.pipeline import run
from cluster.recipes.commandline import parse
from shards.pack import pack
from shards.sources.pairs import PairsSource


class Reached(Exception):
    """Training would begin here."""


def begin(_: object) -> None:
    raise Reached


def test_training_says_what_its_splits_share(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = []
    (tmp_path / "photos").mkdir()
    for number, split in enumerate(["train"] * 8 + ["val"] * 2 + ["test"] * 2):
        for side in (0, 1):
            shade = 0 if number == 11 else number  # a test pair with the first image of train
            Image.new("RGB", (32, 32), (20 * shade, 90 * side, 7)).save(tmp_path / "photos" / f"{number}{side}.png")
        rows.append({"before": f"{number}0.png", "after": f"{number}1.png", "captions": [f"car {number} is gone"],
                     "changed": True, "split": split})  # fmt: skip
    (tmp_path / "photos" / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack(PairsSource(tmp_path / "photos"), tmp_path / "data" / "cars", workers=1)
    capsys.readouterr()
    command = parse(
        ["tiny", "--root", str(tmp_path), "--data.shards", "data/cars", "--data.source", "none", "--stage", "pretrain",
         "--model.architecture", "paper", "--pretrain.ratios", "mlm=1", "--finetune.ratios", "finetune=1",
         "--data.pack_workers", "1", "--log.wandb", "disabled"]
    )  # fmt: skip
    with pytest.raises(Reached):
        run(command, fit=begin)
    lines = [line for line in capsys.readouterr().err.splitlines() if "byte for byte" in line]
    assert len(lines) == 1 and "2 in train and test" in lines[0] and "data/cars" in lines[0]
