"""bench.gpu on a CPU: plain equals ours, the time is shared out, parts that fail are reported, the page is made."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.gpu import synthetic  # noqa: E402
from bench.gpu.ours import on_device  # noqa: E402
from bench.gpu.plain import PlainLoop, PlainModel  # noqa: E402
from cluster.batches import StepBatch  # noqa: E402
from idc.objectives import ObjectiveOptions  # noqa: E402
from idc.reference import to_reference  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: more threads only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda", "classify", "finetune"])
def test_plain_is_the_same_computation_as_ours(task: str, mask_padding: bool) -> None:
    network = synthetic.paper(small=True)
    model = dataclasses.replace(network.model, mask_padding=mask_padding, cross_modal_blocks=2)
    network = dataclasses.replace(network, model=model)
    ours = network.build().eval()
    with torch.no_grad():
        for weight in ours.parameters():  # away from the start, where many are 0 or 1
            weight.add_(0.1 * torch.randn_like(weight))
    plain = PlainModel(model).eval()
    assert not plain.load_state_dict(to_reference(ours)).missing_keys
    table = synthetic.feature_table(network, "cpu")
    batch = synthetic.batches(network, task, 1)[0]
    images = {"before": table[batch.rows[:, 0]].float(), "after": table[batch.rows[:, 1]].float()}
    losses = ours(StepBatch(task, [], 0).model_task, on_device(network, batch, table), ObjectiveOptions())
    found = plain(task, images | batch.text)
    assert found.keys() == losses.keys()
    for name, loss in losses.items():
        expected = loss.sum if task == "finetune" else loss.mean
        assert found[name].item() == pytest.approx(expected.item(), rel=1e-5), name
    sum(found.values()).backward()
    sum(loss.sum if task == "finetune" else loss.mean for loss in losses.values()).backward()
    by_name = dict(plain.named_parameters())
    norm = torch.stack([w.grad.norm() for w in ours.parameters() if w.grad is not None]).norm().item()
    there = torch.stack([w.grad.norm() for w in by_name.values() if w.grad is not None]).norm().item()
    assert there == pytest.approx(norm, rel=1e-4)


def test_the_plain_loop_learns() -> None:
    network = synthetic.paper(small=True)
    table = synthetic.feature_table(network, "cpu")
    batch = synthetic.batches(network, "mlm", 1)[0]
    host = {"before": table[batch.rows[:, 0]].float(), "after": table[batch.rows[:, 1]].float()} | batch.text
    torch.manual_seed(0)
    loop = PlainLoop(PlainModel(network.model), "cpu", lr=1e-2)
    losses = [loop.step("mlm", host) for _ in range(12)]
    assert losses[-1] < losses[0]
