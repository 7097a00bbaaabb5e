"""The published architecture gives the numbers of the reference implementation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from idc.model.config import ModelConfig
from idc.model.paper import PaperModel
from idc.reference import parity
from idc.reference.__main__ import main as command

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "tests" / "data" / "parity_seed0.npz"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FILE) as found:
        return {name: found[name] for name in found.files}


def test_every_quantity_is_within_its_bound():
    comparisons = parity.check(FILE)
    assert [str(found) for found in comparisons if not found.passed] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_quantity_is_within_its_bound_on_a_gpu():
    comparisons = parity.check(FILE, "cuda")
    assert [str(found) for found in comparisons if not found.passed] == []


def test_what_was_chosen_about_precision_stays_after_a_check():
    torch.set_float32_matmul_precision("high")
    try:
        parity.check(FILE)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_device_that_is_not_there_is_named(capsys):
    assert command([str(FILE), "--device", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--device nowhere" in error


def test_every_result_of_the_file_is_compared(arrays):
    results = {name for name in arrays if not name.startswith(("meta/", "inputs/")) and "/weights/" not in name}
    assert results <= {comparison.name for comparison in parity.check(FILE)}


@pytest.mark.slow
def test_command_prints_a_line_a_quantity():
    command = [sys.executable, "-m", "idc.reference", str(FILE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("ok") and "pretrain/mlm/loss" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("weight", "failing"),
    [
        ("pretrain/weights/encoder.layers.1.sublayer.1.norm.b_2", "pretrain/mlm/logits"),
        ("finetune/weights/pooler.0.weight", "finetune/changed/loss"),
        ("classify/weights/aligner.0.weight", "classify/match_logits"),
    ],
)
def test_a_changed_weight_is_noticed(arrays, tmp_path, capsys, weight, failing):
    np.savez(tmp_path / "changed.npz", **(arrays | {weight: arrays[weight] * np.float32(1.001)}))
    assert command([str(tmp_path / "changed.npz")]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert any(line.endswith(failing) for line in failed)


def test_not_a_number_fails():
    assert not parity.Comparison("loss", float("nan"), 1e-5).passed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs/caption_masked": None}, "inputs/caption_masked is missing"),
        ({"pretrain/weights/output_layer.bias": np.zeros(3, np.float32)}, "output_layer.bias"),
        ({"finetune/weights/output_layer.bias": None}, "output_layer.bias"),
        ({"pretrain/weights/unknown": np.zeros(3, np.float32)}, "unknown"),
        ({"pretrain/weights/position_encoding.pe": np.zeros((1, 200, 64), np.float32)}, "position_encoding.pe"),
        ({"meta/heads": np.int64(7)}, "heads"),
        ({"inputs/caption": np.full((5, 12), 99)}, "do not fit together"),
        ({"inputs/before": np.zeros((5, 4, 96), np.float32)}, "do not fit together"),
        ({"pretrain/mlm/logits": np.zeros((2, 50), np.float32)}, "pretrain/mlm/logits"),
    ],
)
def test_an_unusable_file_is_one_line(arrays, tmp_path, capsys, change, named):
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: array for name, array in (arrays | change).items() if array is not None})
    assert command([str(path)]) == 2
    message = capsys.readouterr().err
    assert named in message and str(path) in message and message.count("\n") == 1


def test_no_file_and_no_archive(tmp_path, capsys):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "objects.npz", **{"meta/d_model": np.array([{}])})
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in ("absent.npz", "text.npz", "objects.npz", "single.npy"):
        assert command([str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err


class Recorder(parity.Check):
    """Writes what the check would compare into the file's arrays."""

    def values(self, name, ours):
        self.file.arrays[name] = torch.as_tensor(ours).detach().numpy()
        super().values(name, ours)

    def same(self, name, ours):
        self.file.arrays[name] = ours.numpy()
        super().same(name, ours)

    def gradients(self, name, model, loss):
        self.file.arrays[f"{name}/grad_norm_total"] = np.float64(1)
        super().gradients(name, model, loss)
        norms = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
        self.file.arrays[f"{name}/grad_norm_total"] = torch.stack(norms).norm().double().numpy()
        for ours, weight in model.named_parameters():
            norm = 0.0 if weight.grad is None else float(weight.grad.norm())
            self.file.arrays[f"{name}/grad_norm/{parity.reference_name(ours)}"] = np.float64(norm)


def test_other_sizes_ids_and_temperatures(tmp_path):
    rng, batch, negatives, length, grid = np.random.default_rng(0), 3, 2, 7, 2
    ids = {"pad": 9, "bos": 8, "eos": 7, "unk": 6, "cls": 5, "mask": 4}
    sizes = {"d_model": 24, "heads": 3, "d_ff": 20, "cross_modal_blocks": 1, "feature_dim": 14}
    arrays = {f"meta/{name}": np.int64(value) for name, value in (ids | sizes).items()}
    arrays |= {"meta/vocab": np.int64(31), "meta/grid": np.int64(grid), "meta/max_len": np.int64(length + 2)}
    for stage, classes in (("pretrain", 0), ("finetune", 0), ("classify", 4)):
        config = ModelConfig(vocab_size=31, grid=(grid, grid), max_length=length + 2, classes=classes, **ids, **sizes)
        weights = parity.to_reference(PaperModel(config))
        arrays |= {f"{stage}/weights/{name}": weight.numpy() for name, weight in weights.items()}
    words = rng.integers(10, 31, (batch, 1 + negatives, length))
    words[:, :, 0], words[:, 0, -2:] = ids["bos"], ids["pad"]
    labels = np.where(rng.random((batch, length)) < 0.5, words[:, 0], -1)
    labels[:, 1] = words[:, 0, 1]
    arrays |= {
        "inputs/before": rng.normal(size=(batch, grid**2, 14)).astype(np.float32),
        "inputs/after": rng.normal(size=(batch, grid**2, 14)).astype(np.float32),
        "inputs/caption": words[:, 0],
        "inputs/caption_masked": np.where(labels >= 0, ids["mask"], words[:, 0]),
        "inputs/caption_labels": labels,
        "inputs/caption_with_negatives": words,
        "inputs/visual_mask": np.eye(batch, 2 * grid**2, dtype=bool),
        "inputs/changed": np.array([[1], [0], [1]]),
        "inputs/class_before": np.array([[1], [0], [3]]),
        "inputs/class_after": np.array([[1], [2], [1]]),
        "inputs/same_class": np.array([[1], [0], [0]]),
        "pretrain/mvcl_t0.3/loss": np.float64(0),
        "pretrain/fda_t0.2/loss": np.float64(0),
    }
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    recorder = Recorder(parity.ReferenceFile(path))
    for part in (parity._pretraining, parity._finetuning, parity._classification):
        part(recorder)
    np.savez(path, **recorder.file.arrays)
    comparisons = parity.check(path)
    assert all(comparison.passed for comparison in comparisons)
    assert {"pretrain/mvcl_t0.3/per_cell_loss", "pretrain/fda_t0.2/accuracy"} <= {found.name for found in comparisons}


def test_names_translate_both_ways(make_model):
    source, target = make_model(seed=1), make_model(seed=2)
    weights = parity.to_reference(source)
    assert len(weights) == len(source.state_dict())
    assert parity.load_reference(target, weights) == []
    for name, weight in source.state_dict().items():
        assert torch.equal(weight, target.state_dict()[name]), name
    assert "feat_regress.weight" in weights and "double_img_encoder.layers.0.attn.q_linear.weight" in weights
