"""The plan as text: the workers, the memory of each, the steps of each stage, and the time."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from cluster.batches.schedule import TaskSchedule, stage_seed
from cluster.config.fields import Config, task_micro_batches
from cluster.distributed.devices import Placement, resolved
from cluster.planning.calibration import Measured, measure
from cluster.planning.memory import Memory, of_worker
from idc.model.build import build

PARTS = ("weights", "gradients", "optimiser", "deepspeed", "activations", "batches")


def show(
    config: Config, stages: Sequence[str], placement: Placement, nodes: int, samples_per_second: float | None,
    limit_s: float,
) -> str:  # fmt: skip
    """The plan of these stages."""
    zero = int(placement.workers > 1) if config.cluster.zero_stage == "auto" else config.cluster.zero_stage
    config = resolved(config, placement)
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in build(config.model).parameters())
    a_node = -(-placement.workers // nodes)
    lines = [
        f"plan of {config.name}: {placement}, ZeRO {zero}, {nodes} node{'s' * (nodes > 1)}; {weights:,} parameters",
        "",
        f"MiB of a worker  {''.join(f'{part:>12}' for part in PARTS)}{'at most':>10}  largest task",
    ]
    memories = {name: of_worker(config, config.stage(name), placement, zero) for name in stages}
    lines += [_memory(name, config, memory, placement.workers) for name, memory in memories.items()]
    lines += ["", f"{'stage':15}  {'steps':>9} {'samples':>12} {'s a step':>10} {'hours':>9}"]
    measured = {} if samples_per_second else _calibrate(config, stages, placement, a_node, memories, limit_s)
    total, unknown = 0.0, []
    for name in stages:
        schedule = TaskSchedule(config.stage(name), stage_seed(config.seed, name))
        samples, steps = schedule.samples(schedule.steps), schedule.steps
        seconds = samples / samples_per_second if samples_per_second else _time(schedule, measured[name])
        known = not math.isnan(seconds)
        total += seconds
        unknown += [] if known else [f"the time of {name} is unknown: {measured[name].fault}"]
        hours = (f"{seconds / steps:10.3f}", f"{seconds / 3600:9.2f}") if known else (f"{'?':>10}", f"{'?':>9}")
        lines.append(f"{name:15}  {steps:9,} {samples:12,} {hours[0]} {hours[1]}")
    lines.append(f"{'together':15}  {'':9} {'':12} {'':10} {'?' if math.isnan(total) else f'{total / 3600:.2f}':>9}")
    lines += ["", *unknown, *_notes(config, placement, a_node, memories, measured, samples_per_second)]
    return "\n".join(lines)


def _memory(name: str, config: Config, memory: Memory, world: int) -> str:
    number, size = task_micro_batches(config.stage(name), memory.task, world)
    values = "".join(f"{getattr(memory, part) / 2**20:12,.1f}" for part in PARTS)
    return f"{name:15}  {values}{memory.peak / 2**20:10,.1f}  {memory.task}, {number} x {size} samples"


def _time(schedule: TaskSchedule, measured: Measured) -> float:
    """Seconds of all steps of a stage; NaN where one of its tasks was not measured."""
    drawn = Counter(schedule.task(step) for step in range(schedule.steps))
    return sum(count * measured.seconds.get(task, math.nan) for task, count in drawn.items())


def _calibrate(
    config: Config, stages: Sequence[str], placement: Placement, a_node: int, memories: dict[str, Memory],
    limit_s: float,
) -> dict[str, Measured]:  # fmt: skip
    """A node's workers at once, where this machine can stand for a node of the plan."""
    gpus = bool(placement.gpus_per_worker)
    cores, fault = len(os.sched_getaffinity(0)), ""
    needed, free = a_node * max(one.peak for one in memories.values()), _available()
    if not limit_s:
        fault = "nothing was measured (--calibrate 0)"
    elif gpus and torch.cuda.device_count() < 1:
        fault = "no GPU here to measure on"
    elif not gpus and a_node * config.cluster.threads > cores:
        fault = f"a node's {a_node} workers of {config.cluster.threads} threads want more than the {cores} cores here"
    elif not gpus and needed > free:
        fault = f"a node's workers need {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free here"
    if fault:
        return dict.fromkeys(stages, Measured(fault=f"{fault}; give --samples-per-second"))
    together = min(a_node, torch.cuda.device_count()) if gpus else a_node
    return {name: measure(config, name, placement.workers, together, gpus, limit_s) for name in stages}


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _notes(
    config: Config, placement: Placement, a_node: int, memories: dict[str, Memory], measured: dict[str, Measured],
    samples_per_second: float | None,
) -> list[str]:  # fmt: skip
    notes = []
    if samples_per_second:
        notes.append(f"time: {samples_per_second:g} samples a second, as given")
    elif any(one.seconds for one in measured.values()):
        notes.append(
            "time: steps measured on this machine; without waits for data, sums over workers, validations, checkpoints"
        )
    process = max((one.process for one in measured.values()), default=0)
    if process:
        notes.append(f"memory of a worker's process besides, measured: {process / 2**20:,.0f} MiB")
    for name, one in measured.items():
        if placement.workers == 1 and one.peak:
            off = memories[name].peak / one.peak - 1
            notes.append(f"tensors of {name}: {one.peak / 2**20:,.1f} MiB measured, {off:+.1%} in the plan")
    copy = max(one.checkpoint for one in memories.values())
    notes.append(f"from the first checkpoint on the first worker holds a copy in host memory: {copy / 2**20:,.1f} MiB")
    if placement.gpus_per_worker:
        notes.append("GPU memory: CUDA itself and features held there (--data.features_on) come on top")
        if not torch.cuda.is_available():
            notes.append("no GPU here: activations are those of a CPU's kernels, whose attention keeps more")
    return notes
