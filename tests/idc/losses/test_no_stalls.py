"""A training step never asks the device for a value, and the published network compiles without a break.

Tensors of the meta device have shapes and no values. Whatever would make a host wait for a GPU fails on them:
`.item()`, `.tolist()`, `float()` and `bool()` of a tensor, boolean indexing, `nonzero`, copies to the CPU.
"""

from __future__ import annotations

import pytest
import torch
from testing.task_keys import KEYS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from idc.losses import objectives
from idc.losses.objectives import OBJECTIVES, ObjectiveOptions, loss_names, prepare
from idc.losses.training_model import TrainingModel

OPTIONS = [ObjectiveOptions(), ObjectiveOptions(contrastive_group=2)]


class NoCopiesFromTheHost(TorchFunctionMode):
    """Fails where a tensor is made from Python values on a device: on a GPU that copy waits for the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in (torch.tensor, torch.as_tensor, torch.from_numpy), f"{function.__name__} in a step"
        return function(*args, **(kwargs or {}))


def batch_of(task: str, full: dict[str, Tensor], group: int, uneven: bool) -> dict[str, Tensor]:
    batch = {name: full[name] for name in ("before", "after", "photo", *KEYS[task]) if name in full}
    if uneven:
        batch["real"] = torch.arange(4) < 3
    return prepare(task, batch, group=group, multiple=8)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("caption_loss", ["causal", "masked"])
@pytest.mark.parametrize("task", KEYS)
def test_a_step_of_the_published_network_asks_for_no_value(make_model, make_batch, task, caption_loss, options, uneven):
    assert set(KEYS) | {"labels"} == set(OBJECTIVES)
    full = make_batch()
    if caption_loss == "masked" and task == "finetune":
        full |= {name: full[name] for name in KEYS["mlm"]}
        batch = {name: full[name] for name in ("before", "after", *KEYS["mlm"], "changed")}
        batch = prepare(task, batch | ({"real": torch.arange(4) < 3} if uneven else {}))
    else:
        batch = batch_of(task, full, options.contrastive_group, uneven)
    model = make_model(caption_loss=caption_loss, dropout=0.1).train().to("meta")
    on_device = {name: tensor.to("meta") for name, tensor in batch.items()}
    with NoCopiesFromTheHost():
        found = objectives.losses(model, task, on_device, options)
        torch.stack([term.mean for term in found.values()]).sum().backward()
    assert tuple(found) == loss_names(task, batch)


OURS = {"architecture": "idc", "regions": 3, "novelties": 2, "pooled": 2, "cell_size": 8}
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}  # as in the recipes
OURS_KEYS = KEYS | {"labels": ("present",), "finetune": (*KEYS["finetune"], "present")}


def batch_of_ours(task: str, full: dict[str, Tensor], group: int, tokens: int) -> dict[str, Tensor]:
    """With places for as many tokens as our network has."""
    made = full | {"present": torch.tensor([[1, 0, 0, 1, 0], [-1] * 5, [0] * 5, [0, 0, 1, 0, 0]])}
    made["visual_mask"] = torch.arange(2 * tokens).expand(4, -1) % 5 == 0
    return prepare(task, {name: made[name] for name in ("before", "after", *OURS_KEYS[task])}, group=group)


@pytest.mark.parametrize("fine_channels", [0, 2])
@pytest.mark.parametrize("task", OURS_KEYS)
def test_a_step_of_ours_asks_for_no_value(make_model, make_batch, task, fine_channels):
    assert set(OURS_KEYS) == set(OBJECTIVES)
    model = make_model(**OURS, fine_channels=fine_channels, attributes=True, dropout=0.1).train()
    batch = batch_of_ours(task, make_batch(), 0, model.visual_tokens)
    model, on_device = model.to("meta"), {name: tensor.to("meta") for name, tensor in batch.items()}
    with NoCopiesFromTheHost():
        found = objectives.losses(model, task, on_device, ObjectiveOptions())
        torch.stack([term.mean for term in found.values()]).sum().backward()
    assert tuple(found) == loss_names(task, batch)


class Kernels(TorchDispatchMode):
    """Counts the operations that are no views: on a GPU each is a kernel, as a rule."""

    FREE = ("detach", "_unsafe_view")  # views too

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view and function.overloadpacket.__name__ not in self.FREE
        return function(*args, **(kwargs or {}))


def test_a_forward_pass_of_ours_is_few_kernels(make_model, make_batch):
    model = make_model(**OURS, fine_channels=2, attributes=True, layer_norm="standard", **NO_DROPOUT).train()
    batch = batch_of_ours("finetune", make_batch(), 0, model.visual_tokens)
    del batch["caption_with_negatives"]
    with Kernels() as kernels:  # not on the meta device, where attention is many operations
        objectives.losses(model, "finetune", batch, ObjectiveOptions())
    assert kernels.count <= 600


def test_the_check_notices_what_waits(make_model, make_batch):
    model = make_model().to("meta")
    unprepared = {
        name: full.to("meta") for name, full in make_batch().items() if name in ("before", "after", *KEYS["mlm"])
    }
    with pytest.raises(RuntimeError, match="Cannot copy out of meta tensor"):
        objectives.losses(model, "mlm", unprepared)
    for waits in (
        lambda x: x[x > 0], lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: float(x.sum()), lambda x: x.cpu(),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            waits(torch.zeros(2, device="meta"))
    with pytest.raises(AssertionError, match="tensor in a step"), NoCopiesFromTheHost():
        torch.tensor([1.0], device="meta")


@pytest.mark.slow
@pytest.mark.parametrize("task", KEYS)
def test_the_published_network_has_no_graph_break(make_model, make_batch, task):
    model, options = make_model().train(), ObjectiveOptions()
    batch = batch_of(task, make_batch(), 0, uneven=False)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(TrainingModel(model))(task, batch, options)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons
