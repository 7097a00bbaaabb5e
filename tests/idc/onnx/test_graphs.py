"""The ONNX graphs of a model say what PyTorch says, for any batch; the program beside them needs neither."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from idc.backbone.backbone import Backbone
from idc.captioner import Captioner
from idc.captioning import model_folder
from idc.model.build import build
from idc.model.config import ModelConfig
from idc.onnx import graphs
from idc.onnx.caption import OnnxCaptioner
from shards.packing.tokenizer import train_tokenizer

SIZE = {"d_model": 16, "heads": 2, "d_ff": 24, "cross_modal_blocks": 2, "max_length": 9, "vocab_size": 23}


def pictures(number: int, height: int, width: int) -> list[np.ndarray]:
    """Random coarse pictures, all different."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (2 * number, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in coarse]


@pytest.mark.slow
def test_a_folder_captions_without_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = Backbone(size=(48, 64), precision="fp32")
    entry = train_tokenizer(["one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                             "sixteen seventeen"], tmp_path, "words")  # fmt: skip
    config = ModelConfig(**SIZE, feature_dim=backbone.dim, grid=backbone.grid, caption_loss="masked", final_norm=True)
    model = build(config).eval()
    with torch.no_grad():
        model.word_head.weight.mul_(20)
        model.projection.weight.mul_(5)
    folder = model_folder.save(
        tmp_path / "model", config, model.state_dict(), tmp_path / entry["file"], backbone.describe(),
        model_folder.Decoding(3, 0.6),
    )  # fmt: skip
    exported = model_folder.load(folder)
    (folder / "onnx").mkdir()
    graphs.export(exported.model, backbone, folder / "onnx")

    images = pictures(6, 40, 70)
    pairs = list(zip(images[0::2], images[1::2], strict=True))
    expected = Captioner(exported, backbone).captions(pairs, maps=False)
    runtime = OnnxCaptioner(folder)
    paths = []
    for number, (pair, wanted) in enumerate(zip(pairs, expected, strict=True)):
        paths = [tmp_path / f"{number}-{side}.png" for side in ("before", "after")]
        for path, pixels in zip(paths, pair, strict=True):
            Image.fromarray(pixels).save(path)
        text, log_probability, changed = runtime.caption(*paths)
        assert text == wanted.text
        assert log_probability == pytest.approx(wanted.alternatives[0][1], abs=2e-3)
        assert changed == pytest.approx(wanted.changed_probability, abs=1e-3)
    assert len({wanted.text for wanted in expected}) > 1, "the images decide what is said"

    encoder = onnxruntime.InferenceSession(folder / "onnx" / graphs.ENCODER)
    sides = [np.stack([backbone.prepare(pair[side]) for pair in pairs]) for side in (0, 1)]
    for batch in (1, 3):  # the graphs were traced with a batch of two
        found = encoder.run(None, {"before": sides[0][:batch], "after": sides[1][:batch]})
        wanted = [each.detach() for each in graphs.Encoder(exported.model, backbone)(*map(torch.from_numpy, sides))]
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, want[:batch].numpy(), rtol=1e-3, atol=2e-3)

    program = Path(sys.modules[OnnxCaptioner.__module__].__file__).read_text()
    (folder / "onnx" / "caption.py").write_text(
        program + "\nassert 'torch' not in sys.modules and 'idc' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, folder / "onnx" / "caption.py", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, expected[-1].text + "\n"), done.stderr


class _Replaced(torch.nn.Module):
    """What an exporter would write down in another way, as the model has it."""

    def forward(self, scores: torch.Tensor, root: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """scores (2B, n), root (2B, 3, 3)."""
        system = torch.kron(torch.eye(2), root @ root.transpose(1, 2) + 0.1 * torch.eye(3))
        solved = torch.linalg.solve_ex(system, torch.cat([root[:, 0], root[:, 1]], dim=1))[0]
        return torch.nn.functional.logsigmoid(scores), torch.cat(scores.chunk(2)[::-1]), solved


@pytest.mark.slow
def test_what_is_written_in_another_way_computes_the_same(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.linspace(-60, 60, 18).reshape(6, 3), torch.randn(6, 3, 3, generator=generator)
    traced = [each[:4] for each in inputs]
    graphs._write(
        _Replaced(), traced, [{0: graphs._ANY}] * 2, ("scores", "root"), ("sure", "swapped", "solved"),
        tmp_path / "replaced.onnx",
    )  # fmt: skip
    found = onnxruntime.InferenceSession(tmp_path / "replaced.onnx").run(
        None, {"scores": inputs[0].numpy(), "root": inputs[1].numpy()}
    )
    for got, want in zip(found, _Replaced()(*inputs), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-3)


def test_systems_are_solved_without_pivots() -> None:
    root = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    system, right = root @ root.transpose(1, 2) + 0.1 * torch.eye(6), root[:, 0]
    torch.testing.assert_close(graphs.solve(system, right), torch.linalg.solve(system, right), rtol=1e-3, atol=1e-4)


def test_only_fp32_is_exported(tmp_path: Path, make_model) -> None:
    with pytest.raises(ValueError, match="computes in bf16"):
        graphs.export(make_model(), Backbone(size=(32, 32), precision="bf16"), tmp_path)
