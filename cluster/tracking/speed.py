"""How fast a stage trains: samples and steps a second, the share of a GPU's peak, waits, memory; a profiler's trace."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cluster.config.fields import BackboneConfig
from idc.backbone.network import IMAGES, untrained
from idc.losses.objectives import losses
from idc.model.build import build
from idc.model.trunk import Trunk

# Dense bf16 products of a card, TFLOP/s, by its makers' data sheets; what its name has to contain.
PEAKS = {"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "B200": 2250, "A100": 312, "L40S": 362}
WARM_UP = 20  # steps before a trace


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s that the device's maker states; None where it is not in our list."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * peak for card, peak in PEAKS.items() if card in name), None)


class StepFlops:
    """Floating point operations of a training step of one worker, counted once for each shape of batch."""

    def __init__(self, model: Trunk, backbone: BackboneConfig | None = None) -> None:
        """backbone: of batches that have images in place of features."""
        # Shapes alone: no memory, no computing, and nothing of DeepSpeed's hooks.
        with torch.device("meta"):
            self._model = build(model.config)
            self._of_image = 0 if backbone is None else _operations(backbone)
        self._known: dict[tuple, int] = {}

    def of(self, task: str, batch: Mapping[str, Tensor]) -> int:
        """Of the matrix products of forward and backward passes over one micro-batch."""
        shapes = (task, *((name, tuple(tensor.shape)) for name, tensor in sorted(batch.items())))
        if shapes not in self._known:
            on_meta = {name: tensor.to("meta") for name, tensor in batch.items()}
            images = 0
            if self._of_image:
                cells, width = self._model.config.cells, self._model.config.feature_dim
                for role in (role for role in IMAGES if role in batch):
                    images += len(batch[role])
                    on_meta[role] = torch.empty(len(batch[role]), cells, width, device="meta")
            with FlopCounterMode(display=False) as counter:
                found = losses(self._model, task, on_meta)
                torch.stack([loss.sum for loss in found.values()]).sum().backward()
            self._known[shapes] = counter.get_total_flops() + images * self._of_image
        return self._known[shapes]


def _operations(backbone: BackboneConfig) -> int:
    """Of one image: forward, and backward as far as the backbone is trained. On the device meta."""
    network = untrained(backbone.name, backbone.size, backbone.strides, backbone.train)
    with FlopCounterMode(display=False) as counter:
        features = network(torch.zeros(1, *network.taken.canvas, 3, dtype=torch.uint8))
        if features.requires_grad:
            features.sum().backward()
    return counter.get_total_flops()


class Speed:
    """Speed since the last line of the log, validations and checkpoints left out. Of one worker, and of all."""

    def __init__(
        self,
        device: torch.device,
        model: Trunk | None,
        step: int,
        samples: int,
        backbone: BackboneConfig | None = None,
    ) -> None:
        """`model`, and a live `backbone`, are needed where operations are counted, on GPUs; `step` and `samples` have
        been done before."""
        self._peak = peak_flops(device)
        self._card = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        self._flops = StepFlops(model, backbone) if device.type == "cuda" and model is not None else None
        self._done, self._time = (step, samples), time.perf_counter()
        self._made: dict[str, float] = defaultdict(float)

    def waited(self, seconds: float) -> None:
        """Time without a batch."""
        self._made["wait"] += seconds

    def left_out(self, seconds: float) -> None:
        """Time that no step took: a validation, a checkpoint."""
        self._made["other"] += seconds

    def step(self, task: str, micro_batches: list[dict[str, Tensor]]) -> None:
        """A step has been started on these."""
        if self._flops is not None:
            self._made["flops"] += sum(self._flops.of(task, batch) for batch in micro_batches)

    def measures(self, step: int, samples: int) -> dict[str, Any]:
        """samples_per_s and steps_per_s, data_wait (seconds a step) and memory (peak MiB of this worker).

        On a GPU also model_tflops, 10^12 operations a second of this worker. mfu is their share of the card's peak for
        bf16; if that is not known it is None, and "reasons" says why. Starts anew.
        """
        now = time.perf_counter()
        elapsed = max(now - self._time - self._made["other"], 1e-9)
        steps, made = step - self._done[0], self._made
        found: dict[str, Any] = {
            "samples_per_s": round((samples - self._done[1]) / elapsed, 2),
            "steps_per_s": round(steps / elapsed, 4),
            "data_wait": round(made["wait"] / max(steps, 1), 5),
            "memory": round(peak_memory_mib(), 1),
        }
        if self._flops is not None:
            rate = made["flops"] / elapsed
            found["model_tflops"] = round(rate / 1e12, 2)
        if self._flops is not None and self._peak:
            found["mfu"] = round(rate / self._peak, 4)
        else:
            found |= {"mfu": None, "reasons": {"mfu": f"the peak of {self._card} is not known"}}
        self._done, self._time, self._made = (step, samples), now, defaultdict(float)
        return found


def peak_memory_mib() -> float:
    """The most memory this worker has held: of the GPU where it uses one, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Trace:
    """PyTorch's profiler over some steps of a stage, written to traces/STAGE-rankN.json (for Perfetto)."""

    def __init__(self, run: Path, stage: str, rank: int, steps: int) -> None:
        """`steps`: to be recorded, after WARM_UP others; 0: none."""
        self._path, self._left, self._before = run / "traces" / f"{stage}-rank{rank}.json", steps, WARM_UP
        self._profiler: torch.profiler.profile | None = None

    def step(self) -> None:
        """Called before each step."""
        if not self._left and self._profiler is None:
            return
        if self._before:
            self._before -= 1
        elif self._profiler is None:
            self._profiler = torch.profiler.profile(record_shapes=True)
            self._profiler.start()
        elif self._left > 1:
            self._left -= 1
        else:
            self.close()

    def close(self) -> None:
        """Writes what has been recorded."""
        if self._profiler is not None:
            self._profiler.stop()
            self._path.parent.mkdir(exist_ok=True)
            self._profiler.export_chrome_trace(str(self._path))
        self._profiler, self._left = None, 0
