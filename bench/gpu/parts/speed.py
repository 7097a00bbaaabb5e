"""Part `speed`: a mean step of every task, ours beside plain PyTorch on the same card, and captions a second.

By the wall clock, host and device together: what a user waits for. Ours: `bench.gpu.parts.ours` in bf16, features as
float16 in device memory, captions cut to the longest of the batch, padding masked. Plain: `bench.gpu.parts.plain` in
float32, features as float32 in the host's memory, captions of L words. Both compute the same losses
(tests/bench/test_gpu.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.parts import synthetic
from bench.gpu.parts.ours import Ours, on_device, prepared
from bench.gpu.parts.plain import PlainLoop, PlainModel
from bench.gpu.parts.synthetic import Batch, Network
from bench.gpu.parts.timing import by_clock
from bench.gpu.record import Record, one_line, read_json
from bench.one_worker import one_rank
from cluster.training.step import objective_options
from idc.captioning.decoding import generate
from idc.captioning.precision import bf16
from idc.losses.objectives import losses

MIX = {"mlm": 8, "mvcl": 1, "fda": 2}  # the paper's, of pre-training on CLEVR-Change
PRECISION = "bf16"  # of ours
BATCHES = 4  # of a task, in turn
STEPS, SECONDS = 60, 1.5  # of a task, at most
GENERATED = {"greedy": 1, "beam 3": 3}
PAIRS_AT_ONCE = (1, 256)


def run(record: Record) -> None:
    with one_rank(record.device, PRECISION):
        paper, full = synthetic.paper(record.small), synthetic.full(record.small)
        table = synthetic.feature_table(paper, record.device)
        record.attempt("paper", 5, lambda: ours(record, paper, table))
        record.attempt("plain", 5, lambda: plain(record, paper, table))
        summarise(record)
        record.attempt("captions", 3, lambda: captions(record, paper, table))
        whole = synthetic.feature_table(full, record.device)
        record.attempt("blocks_full", 5, lambda: ours(record, full, whole))
        if record.device == "cuda":
            record.attempt("paper compiled", 40, lambda: ours(record, paper, table, compiled="default"))
            summarise(record)
            record.attempt("blocks_full compiled", 60, lambda: ours(record, full, whole, compiled="default"))
        else:
            record.skip("compiled", "no GPU")


def ours(record: Record, network: Network, table: Tensor, compiled: str = "off") -> None:
    """Every task of a network: milliseconds, TFLOP/s, memory."""
    name = network.name + (" compiled" if compiled != "off" else "")
    ceiling = read_json(record.out / "ceilings.json").get("results", {}).get("matrix_products", {}).get("bf16", {})
    found: dict[str, Any] = {"batch": {}, "ms": {}, "tflop": {}, "tflops": {}, "share_of_bf16": {}, "peak_mib": {}}
    found["features_mib"] = round(table.numel() * table.element_size() / 2**20)
    operations = {task: _tflop(network, task, table) for task in network.tasks}
    torch.set_float32_matmul_precision("high")  # as `cluster.distributed.devices.choose_accelerator` has it in bf16
    engine = Ours(network, record.device, PRECISION, compiled=compiled)
    try:
        for task in network.tasks:
            if not record.fits(f"{name} {task}", 30 if compiled != "off" else 2):
                continue
            count = BATCHES if compiled == "off" else 1  # each number of hidden words is compiled anew
            drawn = synthetic.batches(network, task, count)
            batches = [prepared(network, batch, record.device, compiled) for batch in drawn]
            turn = itertools.cycle(batches)
            ms, peak = _measure(record, lambda _, turn=turn: engine.step(next(turn), table))
            found["batch"][task], found["ms"][task], found["peak_mib"][task] = network.batch_size(task), ms, peak
            text = f"{task} {ms:.2f} ms"
            if operations[task] is not None:
                rate = operations[task] / ms * 1e3
                found["tflop"][task], found["tflops"][task] = round(operations[task], 4), round(rate, 2)
                text += f", {rate:.1f} TFLOP/s"
                if ceiling:
                    found["share_of_bf16"][task] = round(rate / ceiling["tflops"], 4)
            record.put(name, found, text)
    finally:
        engine.close()


def plain(record: Record, network: Network, table: Tensor) -> None:
    """The same tasks by the plain loop, batches put together beforehand as a loader's workers would have."""
    torch.set_float32_matmul_precision("highest")
    found: dict[str, Any] = {"ms": {}, "peak_mib": {}}
    torch.manual_seed(0)
    loop = PlainLoop(PlainModel(network.model), record.device)
    for task in network.tasks:
        if not record.fits(f"plain {task}", 2):
            continue
        batches = [_on_host(batch, table) for batch in synthetic.batches(network, task, 2)]
        ms, peak = _measure(record, lambda number, batches=batches, task=task: loop.step(task, batches[number % 2]))
        found["ms"][task], found["peak_mib"][task] = ms, peak
        record.put("plain", found, f"{task} {ms:.2f} ms")


def _on_host(batch: Batch, table: Tensor) -> dict[str, Tensor]:
    """Everything in the host's memory, features as float32, captions of L words."""
    rows = batch.rows.to(table.device)
    return {"before": table[rows[:, 0]].float().cpu(), "after": table[rows[:, 1]].float().cpu()} | batch.text


def _measure(record: Record, step: Callable[[int], object]) -> tuple[float, float | None]:
    """(milliseconds of a step, peak MiB of device memory, or None)."""
    if record.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = by_clock(step, record.device, 0.2 if record.small else SECONDS, STEPS)
    peak = round(torch.cuda.max_memory_allocated() / 2**20) if record.device == "cuda" else None
    return round(1e3 * seconds, 3), peak


def _tflop(network: Network, task: str, table: Tensor) -> float | None:
    """10^12 operations of one step of a task, forward and backward, as torch counts those of matrix products."""
    batch = on_device(prepared(network, synthetic.batches(network, task, 1)[0], table.device.type), table)
    try:
        model, options = network.build().to(table.device), objective_options(network.stages[task])
        with FlopCounterMode(display=False) as counter, torch.autocast(table.device.type, torch.bfloat16):
            found = losses(model, batch.model_task, batch.micro_batches[0], options)
            torch.stack([loss.sum for loss in found.values()]).sum().backward()
        return len(batch.micro_batches) * counter.get_total_flops() / 1e12
    except Exception as error:  # an operation that torch cannot count: the time is measured all the same
        print(f"operations of {task}: {one_line(error)}", flush=True)
        return None


def captions(record: Record, network: Network, table: Tensor) -> None:
    """Captions a second of the network with random weights: every sentence has its full length."""
    model = network.build().to(record.device).eval()
    found: dict[str, float] = {}
    for size in PAIRS_AT_ONCE:
        pairs = min(size, network.pairs)
        images = {"before": table[:pairs].float(), "after": table[-pairs:].float()}
        for way, beam in GENERATED.items():
            name = f"{way}, {size} at once"
            if not record.fits(f"captions {name}", 2):
                continue

            def caption(number: int, images: dict = images, beam: int = beam) -> None:
                with bf16(model, torch.device(record.device)):
                    generate(model, images, beam, stop_at_eos=False)

            seconds = by_clock(caption, record.device, 0.2 if record.small else SECONDS, 20, warm_up=1)
            found[name] = round(pairs / seconds, 1)
            record.put("captions", found, f"{name}: {found[name]:.0f} a second")


def summarise(record: Record) -> None:
    """The mean step of the paper's mix, and how many times faster than plain ours is."""
    results, found = record.results, {}
    for name in ("paper", "paper compiled", "plain"):
        ms = results.get(name, {}).get("ms", {})
        if all(task in ms for task in MIX):
            found[name] = round(sum(ms[task] * share for task, share in MIX.items()) / sum(MIX.values()), 3)
    ratios = {}
    for name in ("paper", "paper compiled"):
        if name in found and "plain" in found:
            ms, slow = results[name]["ms"], results["plain"]["ms"]
            ratios[name] = {"mix": round(found["plain"] / found[name], 2)}
            ratios[name] |= {task: round(slow[task] / ms[task], 2) for task in ms if task in slow}
    if found:
        best = min((name for name in found if name != "plain"), key=lambda name: found[name], default="plain")
        text = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found.items())
        ratio = f"; {ratios[best]['mix']:.1f} times as fast as plain" if best in ratios else ""
        record.put("mix", {"ms": found, "times_plain": ratios, "shares": MIX}, text + ratio)
