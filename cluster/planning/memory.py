"""The memory of one worker, part by part: what a stage holds, and the most that a step of its tasks adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cluster.batches.batches import StepBatch
from cluster.config.fields import Config, StageConfig, task_batch_size, task_micro_batches
from cluster.distributed.devices import Placement
from cluster.planning.live_bytes import LiveBytes
from cluster.planning.mock_batch import mock_batch
from cluster.training.engine import BUCKET, StepResult
from cluster.training.step import rounding, train_step
from idc.backbone.layout import layout
from idc.backbone.network import GridNetwork, untrained
from idc.losses.objectives import ObjectiveOptions
from idc.losses.training_model import TrainingModel
from idc.model.build import build

FLOAT = 4  # bytes of a weight, a gradient, a moment: fp32 at any precision of the products


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker in a stage: each part at its own most, and the most of all together.

    The sum of the parts is more than that: activations go as gradients come.
    """

    weights: int
    optimiser: int  # moments; at ZeRO 1 to 3 a second copy of this worker's part of the weights too
    gradients: int
    deepspeed: int  # buffers that gradients are brought together in; at ZeRO 3 also weights that are gathered
    activations: int  # of the task that needs most
    task: str  # that one
    batches: int  # that are held ready
    peak: int
    checkpoint: int  # the first worker's copy in host memory while one is written; not in `peak`


def of_worker(config: Config, stage: StageConfig, placement: Placement, zero: int) -> Memory:
    """The memory of one of `placement.workers` in a stage, for the largest batches that the recipe can give."""
    device = torch.device("cuda" if placement.gpus_per_worker else "cpu")
    world, held = placement.workers, held_batches(config, device)
    counted = {
        task: _count(config, stage, task, placement, zero, device) for task, ratio in stage.ratios.items() if ratio
    }
    worst = max(counted, key=lambda task: counted[task].activations)
    with torch.device("meta"):
        trained = TrainingModel(build(config.model), network_of(config))
    numbers = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    frozen = sum(b.nbytes for b in trained.buffers())
    of_frozen = FLOAT * sum(p.numel() for p in trained.parameters() if not p.requires_grad)
    weights = (FLOAT * numbers + of_frozen) // (world if zero == 3 else 1) + frozen
    moments = 2 * FLOAT * numbers // (world if zero else 1)
    optimiser = moments + (FLOAT * numbers // world if zero else 0)
    gradients = FLOAT * numbers // (world if zero >= 2 else 1)
    buffers = _buffers(numbers, world, zero, device)
    batches = held * max(one.batch for one in counted.values())
    steady = weights + optimiser + batches
    if zero < 2:  # gradients come while activations go; the buffers are filled when they have gone
        peak = steady + max(max(one.peak for one in counted.values()), gradients + buffers)
    else:
        peak = steady + counted[worst].activations + gradients + buffers
    return Memory(
        weights,
        optimiser,
        gradients,
        buffers,
        counted[worst].activations,
        worst,
        batches,
        peak,
        FLOAT * numbers + frozen + moments,
    )


def network_of(config: Config) -> GridNetwork | None:
    """A live backbone, with random weights, on torch's default device; None: features are cached."""
    backbone = config.backbone
    if backbone.mode == "cached":
        return None
    return untrained(backbone.name, backbone.size, backbone.strides, backbone.train, backbone.checkpointing)


def _remade(network: GridNetwork) -> GridNetwork:
    """The network with new parameters and buffers on torch's default device, in the mode that is on."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(weight.shape), weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return network


def canvas_of(config: Config) -> tuple[int, int] | None:
    """Height and width of the images that a live backbone is given; None: features are cached."""
    backbone = config.backbone
    return None if backbone.mode == "cached" else layout(backbone.name, backbone.size, backbone.strides).canvas


def held_batches(config: Config, device: torch.device) -> int:
    """Steps' batches that a worker has on its device: the one at work and those ready; of a GPU the next one alone."""
    return 2 if device.type == "cuda" else config.data.prefetch + 1


def counted_on(device: torch.device) -> torch.device:
    """Whose kernels are counted: those of the device, or of a CPU where this torch cannot tell a GPU's."""
    return device if device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")


def _buffers(numbers: int, world: int, zero: int, device: torch.device) -> int:
    """What DeepSpeed brings gradients together in; pages of a CPU's that are never written take no memory.

    At ZeRO 3 also weights that a step has gathered: autograd keeps them until their backward pass.
    """
    if zero == 0:
        return FLOAT * min(numbers, BUCKET) if world > 1 else 0
    gathered = FLOAT * numbers if zero == 3 and world > 1 else 0
    return gathered + FLOAT * (BUCKET if device.type == "cuda" else min(numbers, BUCKET))


@dataclass(frozen=True)
class _Counted:
    activations: int  # without gradients
    peak: int  # with gradients and buffers that are there at the same time
    batch: int  # of all micro-batches of this worker's step


class _Fake:
    """Stands where a step wants an engine: the model and its backward pass alone."""

    def __init__(self, trained: nn.Module, precision: str, counter: LiveBytes) -> None:
        self.trained, self._bf16 = trained, precision == "bf16"
        for parameter in (each for each in trained.parameters() if each.requires_grad):
            parameter.register_post_accumulate_grad_hook(lambda parameter: counter.set_apart(parameter.grad))

    def forward(self, *arguments):
        kind = next(self.trained.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self._bf16):
            return self.trained(*arguments)

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()

    def total(self, values: Tensor) -> Tensor:
        return values

    def step(self, lr: float, task: str) -> StepResult:
        return StepResult(torch.zeros(()), torch.zeros(()), torch.zeros(()))


def _count(
    config: Config, stage: StageConfig, task: str, placement: Placement, zero: int, device: torch.device
) -> _Counted:
    """A step of a task, counted without computing it."""
    world, (number, _) = placement.workers, task_micro_batches(stage, task, placement.workers)
    cluster = config.cluster
    with torch.device("meta"):
        visual = build(config.model).visual_tokens
    canvas = canvas_of(config)
    batch = mock_batch(task, stage, config.model, visual, world, *rounding(device, cluster), canvas)
    whole = not stage.contrastive_group
    parts = number if whole else min(number, 2)  # from the second on they are alike
    with torch.device("meta"):
        network = network_of(config)  # timm looks at values while it builds
    with FakeTensorMode() as fake, torch.device(counted_on(device)):
        trained = TrainingModel(build(config.model), network and _remade(network))
        on_device = {name: fake.from_tensor(tensor).to(counted_on(device)) for name, tensor in batch.items()}
        step = StepBatch(task, [on_device] * parts, task_batch_size(stage, task))
        options = ObjectiveOptions(
            contrastive_group=stage.contrastive_group,
            gather=lambda rows: rows.repeat(world, *[1] * (rows.dim() - 1)),
        )
        with LiveBytes() as counter:
            train_step(_Fake(trained, placement.precision, counter), step, stage, 0.0, options=options)
    size = sum(tensor.nbytes for tensor in batch.values())
    return _Counted(counter.peak, counter.peak_of_all, number * size)
