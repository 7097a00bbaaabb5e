"""Losses of a few training steps, one JSON line a run: what `correctness` compares between devices and ZeRO stages.

python -m bench.gpu.parts.steps DEVICE RUN... with runs NETWORK/TASK,TASK.../ZERO/STEPS, such as paper/mlm,fda/1/20:
each step the next of the tasks. A process of its own, because DeepSpeed is on one kind of device for good.
"""

from __future__ import annotations

import json
import sys
import warnings

import torch

from bench.gpu.parts import synthetic
from bench.gpu.parts.ours import Ours, prepared
from bench.one_worker import one_rank
from idc.reference.parity import full_precision

NETWORKS = {"paper": synthetic.paper, "idc": synthetic.full}


def main(arguments: list[str]) -> int:
    device, *runs = arguments
    warnings.simplefilter("ignore", FutureWarning)
    if device == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), 8))
    with one_rank(device, "fp32"), full_precision():
        for run in runs:
            losses = losses_of(run, device)
            print(json.dumps({"run": run, "losses": losses}), flush=True)
    return 0


def losses_of(run: str, device: str) -> list[float]:
    """The sum of the losses at every step, in float32, without dropout; features and batches are the same anywhere."""
    name, tasks, zero, steps = run.split("/")
    network = NETWORKS[name](small=True).comparable()
    table = synthetic.feature_table(network, "cpu").to(device)
    batches = {
        task: [prepared(network, batch, device) for batch in synthetic.batches(network, task, 2)]
        for task in tasks.split(",")
    }
    order = list(batches)
    ours = Ours(network, device, "fp32", zero_stage=int(zero))
    try:
        found = []
        for step in range(int(steps)):
            of_task = batches[order[step % len(order)]]
            measured = ours.step(of_task[step // len(order) % len(of_task)], table)
            found.append(sum(ours.losses(measured).values()))
        return found
    finally:
        ours.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
