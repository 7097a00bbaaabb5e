"""A model and its backbone as two ONNX graphs for any batch: what is seen in two images, and one word more of captions.

encoder.onnx: `before`, `after` uint8 (B, H, W, 3), images on the backbone's canvas -> `changed_probability` (B,) and
the state that words are said from: `keys`, `values` (B, blocks, heads, S, d / heads), `images` (B, S, d) and, with
architecture "idc", `classes` (B, 2P, C).
step.onnx: `words` (N,) int64, the last word of N captions, and the state of each -> `log_probability` (N, V) of the
word after it, `new_keys` and `new_values`, longer by one.

The graphs are traced from the modules that train and caption; `idc/onnx/caption.py` runs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from idc.backbone.backbone import Backbone
from idc.model.layers import KeyValueCache, Sight, upcast
from idc.model.trunk import Decoding, PairEncoding, Trunk

ENCODER, STEP = "encoder.onnx", "step.onnx"
OPSET = 18
ONE_FILE = 1 << 30  # bytes of weights; a file of Protocol Buffers ends at 2 GiB
STATE = ("keys", "values", "images", "classes")
_ANY = torch.export.Dim.DYNAMIC


class Encoder(nn.Module):
    """Pixels of two canvases -> P(changed) and the state before the first word."""

    def __init__(self, model: Trunk, backbone: Backbone) -> None:
        super().__init__()
        self.model, self.network = model, backbone.network
        self._backbone = backbone

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
        """uint8 (B, H, W, 3) twice -> changed probability (B,), then the state in the order of STATE."""
        assert before.shape == after.shape, "as many images before as after"
        features = self._backbone.of_pixels(torch.cat([before, after])).to(self.model.dtype)
        images = dict(zip(("before", "after"), features.chunk(2), strict=True))
        state, changed = self.model.start_captions(images, 0)
        size = state.pair.tokens.shape[1]
        found = (upcast(changed).softmax(-1)[:, 1], *_first(state.caches, size), state.hidden)
        return found if state.pair.classes is None else (*found, state.pair.classes)


class Step(nn.Module):
    """The last words of N captions and their states -> log-probabilities of the next word."""

    def __init__(self, model: Trunk) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, words: Tensor, keys: Tensor, values: Tensor, images: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """words (N,), the state -> (N, V), keys and values with those of the words."""
        width, seen, masks = self.model.visual_tokens, keys.shape[3], self.model.config.caption_loss == "masked"
        caches = [KeyValueCache(seen + 1 + masks) for _ in self.model.cross_modal_stack.blocks]
        for number, cache in enumerate(caches):
            cache.append(keys[:, number], values[:, number])
            cache.keep(seen)
        pair = PairEncoding(images, None, images[:, :2], width, classes)
        sight = _WordAndMask(keys, seen, None, 1, True) if masks else None
        state = Decoding(caches, pair, images, 1, sight, words=seen - images.shape[1])
        said = upcast(self.model.next_word(state, words[:, None])[:, 0]).log_softmax(-1)
        return said, *_first(caches, seen + 1)


class _WordAndMask(Sight):
    """One step of it, without writing in place: the word does not see the <mask> after it."""

    def __init__(self, keys: Tensor, images: int, valid: Tensor | None, captions: int, masks: bool) -> None:
        self._seen = keys.new_zeros(1, 1, 2, images)

    def step(self) -> Tensor:
        """(1, 1, 2, keys)."""
        last = self._seen.new_tensor([[0.0, float("-inf")], [0.0, 0.0]])
        return torch.cat([self._seen, last[None, None]], dim=-1)


def _first(caches: Sequence[KeyValueCache], tokens: int) -> tuple[Tensor, Tensor]:
    """Keys and values (N, blocks, heads, tokens, d / heads) of the first tokens."""
    keys, values = ([getattr(cache, name)[:, :, :tokens] for cache in caches] for name in ("keys", "values"))
    return torch.stack(keys, 1), torch.stack(values, 1)


class _AnyBatch(TorchFunctionMode):
    """Writes down as arithmetic what torch.export fixes the batch for, or what ONNX has no operator for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.chunk and args[1:] == (2,) and not kwargs:
            half = args[0].shape[0] // 2
            return args[0].narrow(0, 0, half), args[0].narrow(0, half, half)
        if func is torch.kron:
            one, other = args
            return (one[:, None, :, None] * other[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1)
        if func is torch.linalg.solve_ex:
            return solve(*args), None
        if func is nn.functional.logsigmoid:  # the exporter's log of a sigmoid is -inf from -18 on
            return -nn.functional.softplus(-args[0])
        return func(*args, **(kwargs or {}))


def solve(system: Tensor, right: Tensor) -> Tensor:
    """x of system (B, n, n) x = right (B, n), by Gauss and Jordan without pivots: for positive definite systems."""
    size = system.shape[-1]
    rows, unit = torch.cat([system, right[..., None]], dim=-1), torch.eye(size, dtype=right.dtype)[..., None]
    for place in range(size):
        pivot = rows[:, place : place + 1] / rows[:, place : place + 1, place : place + 1]
        rows = rows - (rows[:, :, place : place + 1] - unit[place]) * pivot
    return rows[..., -1]


def export(model: Trunk, backbone: Backbone, folder: Path) -> None:
    """Writes encoder.onnx and step.onnx into a folder that is there.

    model: in evaluation mode, on the CPU. backbone: on the CPU too, in fp32. ValueError if a backbone in bf16 is given,
    which onnxruntime's CPU kernels do not compute.
    """
    if backbone.precision != "fp32":
        raise ValueError(f"the backbone computes in {backbone.precision}; graphs are made of one in fp32")
    encoder, step = Encoder(model, backbone).eval(), Step(model).eval()
    pixels = torch.zeros(2, 2, *backbone.canvas, 3, dtype=torch.uint8).unbind()
    with torch.no_grad():
        state = encoder(*pixels)[1:]
        names = STATE[: len(state)]
        _write(encoder, pixels, [{0: _ANY}] * 2, ("before", "after"), ("changed_probability", *names), folder / ENCODER)
        words = torch.full((2,), model.config.bos)
        sizes = [{0: _ANY}, {0: _ANY, 3: _ANY}, {0: _ANY, 3: _ANY}, *({0: _ANY} for _ in state[2:])]
        said = ("log_probability", "new_keys", "new_values")
        _write(step, (words, *state), sizes, ("words", *names), said, folder / STEP)


def _write(
    module: nn.Module,
    inputs: Sequence[Tensor],
    sizes: Sequence[dict[int, Any]],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    with _AnyBatch(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch's exporter says of itself
        traced = torch.export.export(module, tuple(inputs), dynamic_shapes=tuple(sizes), strict=False)
    size = sum(tensor.numel() * tensor.element_size() for tensor in traced.state_dict.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced, f=path, input_names=input_names, output_names=output_names, opset_version=OPSET, verbose=False,
            external_data=size > ONE_FILE,
        )  # fmt: skip
