"""bench/matching.py: regions and their counterparts as the network has them, drawn on one pair."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.matching import draw, main, match  # noqa: E402
from idc.backbone.canvas import Canvas  # noqa: E402
from idc.model.build import build  # noqa: E402
from idc.model.config import ModelConfig  # noqa: E402
from shards.errors import DataError  # noqa: E402

GRID, FINE, COARSE = (4, 5), 6, 7


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "heads": 2,
        "d_ff": 32,
        "cross_modal_blocks": 1,
        "cell_size": 24,
        "regions": 4,
        "novelties": 2,
    }
    return build(
        ModelConfig(
            architecture="idc", vocab_size=20, grid=GRID, feature_dim=4 * FINE + COARSE, max_length=8,
            fine_channels=FINE, classes=3, dropout=0.0, attention_dropout=0.0, layer_norm="standard", **sizes,
        )
    ).eval()  # fmt: skip


def test_equal_images_match_each_region_to_itself(model):
    image = torch.randn(1, GRID[0] * GRID[1], 4 * FINE + COARSE)
    with torch.no_grad():
        model.matching.log_sharpness[0] = torch.tensor([200.0, 1e-3]).log()
    matched = match(model, torch.cat([image, image]))
    assert np.array_equal(matched.before, matched.after) and matched.before.shape == (6, 2)
    assert np.allclose(matched.found, matched.before, atol=1e-2)
    assert np.allclose(matched.expected, matched.before, atol=1e-2), "nothing moved, so the camera did not"


def test_the_picture_holds_both_images(model, tmp_path):
    matched = match(model, torch.randn(2, GRID[0] * GRID[1], 4 * FINE + COARSE))
    images = [Image.new("RGB", (80, 64), color) for color in ((10, 120, 30), (30, 20, 150))]
    canvas = Canvas((64, 80), (64, 80))
    draw(images, matched, canvas, tmp_path / "drawn.png")
    drawn = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB"))
    for image in images:
        assert (drawn == np.asarray(image)[0, 0]).all(-1).mean() > 0.1


def test_wrong_input_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "bench" / "matching.py", tmp_path / "none", tmp_path, "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none" in done.stderr


def test_the_page_has_a_command_that_is_understood(tmp_path, monkeypatch, capsys):
    (arguments,) = re.findall(r"^python bench/matching\.py (.*)$", (ROOT / "docs" / "method.md").read_text(), re.M)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="runs/blocks"):  # it lacks nothing but the run
        main(arguments.split())
