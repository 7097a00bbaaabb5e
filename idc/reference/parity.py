"""The "paper" architecture beside numbers of the reference implementation, and the names of its parameters.

A file (.npz) of reference numbers holds weights, inputs and results (float32, dropout off); docs/reference.md lists its
keys.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idc.captioning.decoding import generate
from idc.losses import fda, mvcl, objectives
from idc.losses.objectives import ObjectiveOptions, prepare
from idc.losses.words import word_logits
from idc.model.config import NOT_SCORED, ModelConfig
from idc.model.layers import sinusoid
from idc.model.paper import PaperModel
from idc.model.trunk import Fused, PairEncoding

LOSS_BOUND = 1e-5  # relative, losses and logits
GRADIENT_BOUND = 1e-4  # relative, gradient norms
# The bias of the keys shifts all scores of a query alike, which softmax does not see: its gradient is zero and its norm
# in float32 is rounding alone, in the reference too. It is compared against the norm of the whole gradient.
ROUNDING_ALONE = ".attn.k_linear.bias"
NOISE_SHARE = 1e-5  # other norms are not compared against less than this share of the whole

_RENAMES = (  # our name -> the reference's, applied in order; none of the results matches a later pattern
    (r"^embedding\.words\.", "word_embedding."),
    (r"^embedding\.types\.", "position_encoding.type_pe."),
    (r"^embedding\.norm\.", "position_encoding.layernorm."),
    (r"^projection\.", "img_project.0."),
    (r"^single_image\.", "single_img_encoder."),
    (r"^pair_image\.", "double_img_encoder."),
    (r"^cross_modal_stack\.", "encoder."),
    (r"\.blocks\.(\d+)\.", r".layers.\1."),
    (r"\.attention\.(query|key|value)\.", lambda found: f".attn.{found[1][0]}_linear."),
    (r"\.attention\.output\.", ".attn.out."),
    (r"\.attention_norm\.", ".sublayer.0.norm."),
    (r"\.feed_forward_norm\.", ".sublayer.1.norm."),
    (r"\.expand\.", ".feed_forward.w_1."),
    (r"\.contract\.", ".feed_forward.w_2."),
    (r"^word_head\.", "output_layer."),
    (r"^changed_head\.", "pooler.0."),
    (r"^class_head\.", "classifier.0."),
    (r"^match_head\.", "aligner.0."),
    (r"^regression\.hidden\.", "feat_regress.net.0."),
    (r"^regression\.norm\.", "feat_regress.net.2."),
    (r"^regression\.", "feat_regress."),
    (r"(norm|feat_regress\.net\.2)\.weight$", r"\1.a_2"),
    (r"(norm|feat_regress\.net\.2)\.bias$", r"\1.b_2"),
)


class ReferenceFileError(ValueError):
    """A file of or for the reference implementation that cannot be used; the message is one line and names it."""


def reference_name(name: str) -> str:
    """The reference implementation's name of a parameter of `PaperModel`."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_reference(model: PaperModel) -> dict[str, Tensor]:
    """The model's weights under the reference's names."""
    return {reference_name(name): weight for name, weight in model.state_dict().items()}


def load_reference(model: PaperModel, weights: Mapping[str, Tensor]) -> list[str]:
    """Loads weights that have the reference's names. Returns the model's parameters that were not among them.

    The position table is computed, not learned, so it is compared instead of loaded. The reference's pre-training
    model has a `pooler.0` over three vectors, which no loss uses: it is left out. Raises ValueError for a weight the
    model has no place for, a wrong shape, or another position table.
    """
    weights = dict(weights)
    table = weights.pop("position_encoding.pe", None)
    if table is not None:
        table = table.flatten(0, -2)
        if not torch.allclose(table, sinusoid(*table.shape), atol=1e-5):
            raise ValueError("position_encoding.pe is not the sinusoid of this architecture")
    places = {reference_name(name): (name, weight.shape) for name, weight in model.state_dict().items()}
    state = {}
    pooler = weights.get("pooler.0.weight")
    unused = pooler is not None and tuple(pooler.shape) == (2, 3 * model.config.d_model)
    for name, weight in weights.items():
        if unused and name.startswith("pooler.0."):
            continue
        if name not in places:
            raise ValueError(f"the model has no place for the weight {name}")
        ours, shape = places[name]
        if weight.shape != shape:
            raise ValueError(f"the weight {name} has shape {tuple(weight.shape)}, the model needs {tuple(shape)}")
        state[ours] = weight
    return model.load_state_dict(state, strict=False).missing_keys


@dataclass(frozen=True)
class Comparison:
    """One quantity: how far we are from the reference, and how far we may be."""

    name: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """False past the bound, and for NaN."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.error:9.2e} (bound {self.bound:.0e})  {self.name}"


class ReferenceFile:
    """The arrays of one file. Raises ReferenceFileError for a file or key that is not there.

    device: where inputs and models are put; what the file says of results stays where it is.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        self.path, self.device = path, torch.device(device)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self.arrays = {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            raise ReferenceFileError(f"{path}: no such file") from None
        except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            raise ReferenceFileError(f"{path}: not a readable .npz file of plain arrays") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise ReferenceFileError(f"{self.path}: the array {name} is missing")
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays below a prefix, without it."""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def inputs(self, *names: str) -> dict[str, Tensor]:
        """Some of the inputs as tensors; before and after always."""
        found = {name: torch.from_numpy(self[f"inputs/{name}"]) for name in ("before", "after", *names)}
        return {name: tensor.to(self.device) for name, tensor in found.items()}

    def model(self, stage: str) -> PaperModel:
        """The network with the weights of one stage, dropout off."""
        meta: dict[str, Any] = {name: int(self[f"meta/{name}"]) for name in _META}
        weights = {name: torch.from_numpy(array) for name, array in self.under(f"{stage}/weights/").items()}
        if not weights:
            raise ReferenceFileError(f"{self.path}: no weights below {stage}/weights/")
        sizes = {"vocab_size": meta.pop("vocab"), "max_length": meta.pop("max_len")}
        grid = meta.pop("grid")
        classes = weights["classifier.0.weight"].shape[0] if "classifier.0.weight" in weights else 0
        try:
            config = ModelConfig(
                **meta, **sizes, grid=(grid, grid), classes=classes, mask_padding=False, caption_loss="masked"
            )
            model = PaperModel(config)
            missing = load_reference(model, weights)
        except ValueError as error:
            raise ReferenceFileError(f"{self.path}: {stage}: {error}") from None
        # The reference's fine-tuning model has no feature head, its pre-training model no changed/unchanged head.
        missing = [name for name in missing if not name.startswith(("regression.", "changed_head."))]
        if missing:
            raise ReferenceFileError(f"{self.path}: no {stage}/weights/{reference_name(missing[0])}")
        return model.to(self.device).eval()


_META = "d_model heads d_ff cross_modal_blocks vocab feature_dim grid max_len pad bos eos unk cls mask".split()


class Check:
    """Collects the comparisons of one file."""

    def __init__(self, file: ReferenceFile) -> None:
        self.file = file
        self.comparisons: list[Comparison] = []

    def values(self, name: str, ours: Tensor | float) -> None:
        """Largest difference, relative to the largest value of the reference's array."""
        found = np.asarray(torch.as_tensor(ours).detach().cpu(), np.float64)
        expected = np.asarray(self.file[name], np.float64)
        if found.shape != expected.shape:
            raise ReferenceFileError(
                f"{self.file.path}: {name} has the shape {expected.shape}, its inputs give {found.shape}"
            )
        difference = float(np.abs(found - expected).max(initial=0.0))
        scale = float(np.abs(expected).max(initial=0.0))
        self.comparisons.append(Comparison(name, difference / scale if scale else difference, LOSS_BOUND))

    def same(self, name: str, ours: Tensor) -> None:
        """The share of elements that differ, which has to be none."""
        expected = self.file[name]
        error = float((ours.cpu().numpy() != expected).mean()) if ours.shape == expected.shape else 1.0
        self.comparisons.append(Comparison(name, error, 0.0))

    def gradients(self, name: str, model: PaperModel, loss: Tensor) -> None:
        """Norm of the loss's gradient by each parameter, and by all."""
        model.zero_grad(set_to_none=True)
        loss.backward()
        found = {
            reference_name(ours): 0.0 if weight.grad is None else float(weight.grad.double().norm())
            for ours, weight in model.named_parameters()
        }
        expected = {key: float(value) for key, value in self.file.under(f"{name}/grad_norm/").items()}
        total = float(self.file[f"{name}/grad_norm_total"])
        for key in sorted(found.keys() | expected.keys()):
            there, here = expected.get(key, 0.0), found.get(key, 0.0)
            scale = total if key.endswith(ROUNDING_ALONE) else max(there, NOISE_SHARE * total)
            error = abs(here - there) / max(scale, 1e-30)
            self.comparisons.append(Comparison(f"{name}/grad_norm/{key}", error, GRADIENT_BOUND))
        here = float(np.linalg.norm(list(found.values())))
        error = abs(here - total) / max(total, 1e-30)
        self.comparisons.append(Comparison(f"{name}/grad_norm_total", error, GRADIENT_BOUND))

    def temperatures(self, task: str) -> list[float]:
        """The temperatures that the file has results of a task at."""
        found = {float(name.split("/")[0]) for name in self.file.under(f"pretrain/{task}_t")}
        if not found:
            raise ReferenceFileError(f"{self.file.path}: no results below pretrain/{task}_t*/")
        return sorted(found)


def device_of(name: str) -> torch.device:
    """The device of that name. ReferenceFileError: it is not there."""
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ReferenceFileError(f"--device {name}: nothing can be computed there ({reason})") from None


def check(path: Path, device: torch.device | str = "cpu") -> list[Comparison]:
    """Every quantity of the file, computed on a device in float32. ReferenceFileError: the file cannot be used."""
    checked = Check(ReferenceFile(path, device))
    try:
        with full_precision():
            _pretraining(checked)
            _finetuning(checked)
            _classification(checked)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ReferenceFileError):
            raise
        reason = str(error).splitlines()[0]
        raise ReferenceFileError(f"{path}: its inputs and sizes do not fit together ({reason})") from None
    return checked.comparisons


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products of float32 numbers in float32, whatever was chosen for this process: no TF32 on GPUs."""
    chosen, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = chosen


def _scored_logits(model: PaperModel, pair: PairEncoding, fused: Fused, labels: Tensor) -> Tensor:
    return word_logits(model, pair, fused, (labels.flatten() != NOT_SCORED).nonzero().flatten())


def _pretraining(checked: Check) -> None:
    file, model = checked.file, checked.file.model("pretrain")

    batch = file.inputs("caption_masked", "caption_labels")
    pair = model.encode_pair(model.embed_images(batch))
    fused = model.cross_modal(pair, batch["caption_masked"])
    checked.values("pretrain/mlm/logits", _scored_logits(model, pair, fused, batch["caption_labels"]))
    loss = objectives.losses(model, "mlm", batch)["mlm"].mean
    checked.values("pretrain/mlm/loss", loss)
    checked.gradients("pretrain/mlm", model, loss)

    batch = file.inputs("caption", "visual_mask")
    for temperature in checked.temperatures("mvcl"):
        name, options = f"pretrain/mvcl_t{temperature}", ObjectiveOptions(mvcl_temperature=temperature)
        prepared = prepare("mvcl", batch)
        per_cell = mvcl.cell_contrast(mvcl.masked_cells(model, prepared), options)
        checked.values(f"{name}/per_cell_loss", per_cell[prepared["hidden_known"]])
        loss = objectives.losses(model, "mvcl", batch, options)["mvcl"].mean
        checked.values(f"{name}/loss", loss)
        checked.gradients(name, model, loss)

    batch = file.inputs("caption_with_negatives")
    pair = model.encode_pair(model.embed_images(batch))
    similarity = fda.caption_similarities(model, pair, batch["caption_with_negatives"])
    for temperature in checked.temperatures("fda"):
        name = f"pretrain/fda_t{temperature}"
        checked.values(f"{name}/mean_positive_similarity", similarity[:, 0].mean())
        checked.values(f"{name}/mean_negative_similarity", similarity[:, 1:].mean())
        checked.values(f"{name}/accuracy", (similarity.argmax(dim=1) == 0).float().mean())
        loss = objectives.losses(model, "fda", batch, ObjectiveOptions(fda_temperature=temperature))["fda"].mean
        checked.values(f"{name}/loss", loss)
        checked.gradients(name, model, loss)


def _finetuning(checked: Check) -> None:
    file, model = checked.file, checked.file.model("finetune")
    batch = file.inputs("caption_masked", "caption_labels", "changed")
    pair = model.encode_pair(model.embed_images(batch))
    fused = model.cross_modal_causal(pair, batch["caption_masked"])
    checked.values("finetune/caption/logits", _scored_logits(model, pair, fused, batch["caption_labels"]))
    checked.values("finetune/changed/logits", model.changed_logits(pair, fused.images))
    for name in ("caption", "changed"):
        loss = objectives.losses(model, "finetune", batch)[name].sum
        checked.values(f"finetune/{name}/loss", loss)
        checked.gradients(f"finetune/{name}", model, loss)
    checked.same("finetune/greedy_tokens", generate(model, file.inputs(), stop_at_eos=False).tokens)


def _classification(checked: Check) -> None:
    file, model = checked.file, checked.file.model("classify")
    batch = file.inputs("class_before", "class_after", "same_class")
    pair = model.encode_pair(model.embed_images(batch))
    checked.values("classify/class_logits", model.class_head(pair.single_cls).transpose(0, 1).flatten(0, 1))
    checked.values("classify/match_logits", model.match_head(torch.cat(pair.both_cls(pair.tokens), dim=-1)))
    found = {name: term.mean for name, term in objectives.losses(model, "classify", batch).items()}
    for name, ours in (("class", "class"), ("match", "match"), ("contrastive", "class_contrastive")):
        checked.values(f"classify/{name}_loss", found[ours])
    loss = torch.stack(list(found.values())).sum()
    checked.values("classify/loss", loss)
    checked.gradients("classify", model, loss)
