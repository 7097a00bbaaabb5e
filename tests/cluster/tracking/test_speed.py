"""What is said of speed: operations counted without computing them, waits left out; traces; compiled code."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from testing.multirank import run_ranks
from torch.utils.flop_counter import FlopCounterMode

from cluster.tracking.speed import WARM_UP, Speed, StepFlops, Trace, peak_flops
from idc.losses import objectives
from idc.losses.objectives import prepare
from idc.model.build import build
from idc.model.config import ModelConfig


def small(task: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    from testing.models.engines import CELLS, CLASSES, FEATURES, LENGTH, WORDS, make_batch

    model = build(
        ModelConfig(
            vocab_size=WORDS, feature_dim=FEATURES, grid=(3, CELLS // 3), d_model=32, heads=2, d_ff=64,
            cross_modal_blocks=2, classes=CLASSES, max_length=LENGTH,
        )
    )  # fmt: skip
    return model, prepare(task, make_batch(task, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("task", ["mlm", "mvcl", "fda", "classify", "finetune"])
def test_operations_are_those_of_the_step(task: str) -> None:
    model, batch = small(task)
    with FlopCounterMode(display=False) as counter:
        losses = objectives.losses(model, task, batch)
        torch.stack([loss.sum for loss in losses.values()]).sum().backward()
    flops = StepFlops(model)
    assert flops.of(task, batch) == flops.of(task, batch) == counter.get_total_flops() > 0
    assert all(parameter.device.type == "meta" for parameter in flops._model.parameters())


@pytest.mark.slow
def test_a_backbone_counts_as_far_as_it_is_trained() -> None:
    from cluster.config.fields import BackboneConfig
    from idc.backbone.layout import layout

    model, batch = small("mlm")
    images = {role: torch.zeros(len(batch[role]), 64, 64, 3, dtype=torch.uint8) for role in ("before", "after")}
    found = []
    for train in ("none", "last:1", "all"):
        live = BackboneConfig("test_vit", mode="live", size=(64, 64), train=train)
        found.append(StepFlops(model, live).of("mlm", batch | images) - StepFlops(model).of("mlm", batch))
    blocks, width, tokens = 6, 64, 17
    forward = 2 * 2 * len(batch["before"]) * blocks * tokens * 10 * width**2  # qkv, projection, twice a width of 3
    assert layout("test_vit", (64, 64)).grid == (4, 4)
    assert forward < found[0] < 1.4 * forward
    assert 1.2 * found[0] < found[1] < 1.6 * found[0] and 2.5 * found[0] < found[2] < 3.1 * found[0]


def test_a_linear_layer_by_hand() -> None:
    """2 operations for each product and sum, forward, by the weight and by the input."""
    model, batch = small("mlm")
    found = {name: StepFlops(model).of("mlm", part) for name, part in (("one", batch), ("two", twice(batch)))}
    words, d, vocabulary = len(batch["word_places"]), model.config.d_model, model.config.vocab_size
    assert 1.9 < found["two"] / found["one"] < 2.1
    assert found["one"] > 3 * 2 * words * d * vocabulary


def twice(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = ("before", "after", "caption_masked", "caption_labels")
    return prepare("mlm", {name: torch.cat([batch[name]] * 2) for name in names})


def test_time_that_no_step_took_is_left_out() -> None:
    speed = Speed(torch.device("cpu"), None, 0, 0)
    started = time.perf_counter()
    time.sleep(0.2)
    speed.left_out(time.perf_counter() - started)
    time.sleep(0.05)
    found = speed.measures(10, 640)
    assert 640 / 0.2 < found["samples_per_s"] < 640 / 0.05
    assert found.pop("mfu") is None and found.pop("reasons") == {"mfu": "the peak of a CPU is not known"}
    assert found.keys() == {"samples_per_s", "steps_per_s", "data_wait", "memory"}, "no share of a peak on a CPU"
    assert peak_flops(torch.device("cpu")) is None
    assert speed.measures(20, 1280)["samples_per_s"] > 640 / 0.2, "it starts anew"


def test_a_trace_is_written_of_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    trace = Trace(tmp_path, "pretrain", 0, 3)
    for step in range(WARM_UP + 10):
        trace.step()
        with torch.profiler.record_function(f"step {step}"):
            torch.ones(4, 4) @ torch.ones(4, 4)
    trace.close()
    events = json.loads((tmp_path / "traces" / "pretrain-rank0.json").read_text())["traceEvents"]
    found = {event["name"] for event in events if str(event.get("name", "")).startswith("step ")}
    assert found == {f"step {WARM_UP + number}" for number in range(3)}
    none = Trace(tmp_path, "finetune", 0, 0)
    none.step()
    none.close()
    assert not (tmp_path / "traces" / "finetune-rank0.json").exists()


def compiled_and_not() -> list[tuple[str, dict[str, float], float]]:
    """Losses and gradient norm of a step of each kind, compiled and not."""
    from testing.models.engines import make_batch, make_engine, take_step

    found = []
    for mode in ("off", "default"):
        engine, stage = make_engine(0, compiled=mode)
        generator = torch.Generator().manual_seed(1)
        found.append([take_step(engine, stage, task, [make_batch(task, generator)]) for task in ("mlm", "mvcl")])
        engine.close()
    return found


@pytest.mark.ranks
def test_compiled_code_gives_the_same_losses() -> None:
    """In the engine, with DeepSpeed around it; the same optimiser steps."""
    ((plain, compiled),) = run_ranks(1, compiled_and_not)
    for (losses, norm), (other_losses, other_norm) in zip(plain, compiled, strict=True):
        assert other_losses == pytest.approx(losses, rel=1e-5) and other_norm == pytest.approx(norm, rel=1e-5)
