"""The time and the memory of a step, measured: one worker's real steps on batches made of nothing, in its own process.

`python -m cluster.planning.calibration` is that process: {"config", "stage", "world", "gpu"} comes by standard input,
what it measured goes back by standard output, both JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from cluster import with_code
from cluster.config.fields import Config
from cluster.config.options import from_dict, to_dict

SAID = 300


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of one stage on this machine; `fault`: why nothing was measured."""

    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of a step, by task
    peak: int = 0  # the most bytes of tensors at a time, on the device; in their first steps, as PyTorch counts
    process: int = 0  # bytes of a CPU worker's memory besides
    fault: str = ""


def measure(config: Config, stage: str, world: int, together: int, gpus: bool, limit_s: float) -> Measured:
    """The slowest of `together` processes at once, each with a worker's share of the steps of `world` workers.

    They do not talk to each other. None lives longer than `limit_s`.
    """
    asked = {"config": to_dict(config), "stage": stage, "world": world}
    environment = with_code()
    children = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )  # fmt: skip
        for _ in range(together)
    ]
    found: list[dict[str, Any]] = []
    until = time.monotonic() + limit_s
    try:
        for number, child in enumerate(children):
            assert child.stdin is not None, "it was asked for"
            child.stdin.write(json.dumps(asked | {"gpu": number if gpus else None}))
            child.stdin.close()
            child.stdin = None
        for child in children:
            answer, said = child.communicate(timeout=max(until - time.monotonic(), 0.0))
            if child.returncode:
                return Measured(fault=f"it ended with code {child.returncode}: {' '.join(said.split())[-SAID:]}")
            found.append(json.loads(answer))
    except subprocess.TimeoutExpired:
        return Measured(fault=f"its steps were not done within {limit_s:g} s")
    finally:
        for child in children:
            child.kill()
            child.wait(10)
    slowest = max(found, key=lambda one: sum(one["seconds"].values()))
    return Measured(**slowest)


def _steps(config: Config, name: str, world: int, gpu: int | None) -> dict[str, Any]:
    import torch.distributed as dist

    from cluster.batches.batches import StepBatch
    from cluster.config.fields import task_batch_size, task_micro_batches
    from cluster.distributed.devices import choose_accelerator
    from cluster.planning.memory import canvas_of, held_batches, network_of
    from cluster.planning.mock_batch import mock_batch
    from cluster.training.engine import Engine
    from cluster.training.step import rounding, train_step
    from idc.model.build import build

    device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
    stage = config.stage(name)
    torch.set_num_threads(config.cluster.threads)
    choose_accelerator(device, config.cluster.precision)
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    tasks = [task for task, ratio in stage.ratios.items() if ratio]

    def steps() -> dict[str, float]:
        seconds = {}
        for task in tasks:
            number, visual = task_micro_batches(stage, task, world)[0], engine.model.visual_tokens
            room = rounding(device, config.cluster)
            batch = mock_batch(task, stage, config.model, visual, world, *room, canvas_of(config))
            ready = [  # as many as a run holds
                StepBatch(task, [{key: value.to(device, copy=True) for key, value in batch.items()}
                                 for _ in range(number)], task_batch_size(stage, task))
                for _ in range(held_batches(config, device))
            ]  # fmt: skip
            started = time.perf_counter()
            train_step(engine, ready[0], stage, lr=1e-6).losses.cpu()
            seconds[task] = time.perf_counter() - started
        return seconds

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        engine = Engine(build(config.model), stage, config.cluster, device, network_of(config), config.backbone)
        steps()  # they make what later ones find, and are not timed
    peak = peak_of(profiler) if gpu is None else torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": steps(), "peak": peak, "process": max(resident - peak, 0) if gpu is None else 0}


def peak_of(profiler: Any) -> int:
    """The most bytes at a time of the tensors that came while a profiler recorded a CPU's."""
    waiting, changes = list(profiler.profiler.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    live: dict[int, int] = {}  # its own total counts what came before and has gone
    total = most = 0
    for _, place, size in sorted(changes):
        if size > 0:
            live[place] = size
            total += size
            most = max(most, total)
        else:
            total -= live.pop(place, 0)
    return most


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not the answer
    given = json.load(sys.stdin)
    answer.write(json.dumps(_steps(from_dict(Config(), given["config"]), given["stage"], given["world"], given["gpu"])))
    answer.flush()
    os._exit(0)
