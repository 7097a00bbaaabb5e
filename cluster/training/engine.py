"""The DeepSpeed engine of one stage: the same five verbs at every ZeRO stage, on CPUs and GPUs.

Measured with DeepSpeed 0.19.8: stages 0 to 3 give the same loss curve to 1e-5 in fp32 with the settings below.
"""

from __future__ import annotations

import copy
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.config.fields import BackboneConfig, ClusterConfig, StageConfig
from cluster.distributed.copies import Copies
from cluster.distributed.deepspeed_import import import_deepspeed, leave_out_compiler, step_alone
from cluster.training import optimizer_state
from cluster.training.gradient_norms import GradientNorms
from idc.backbone.network import GridNetwork
from idc.losses.training_model import TrainingModel
from idc.model.build import build
from idc.model.trunk import Trunk

ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
COMPILED_SHAPES = 64  # most versions of compiled code: each task has a few lengths of captions and numbers of words
BUCKET = 50_000_000  # numbers that are reduced, or gathered, at once


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step did; scalars on the device."""

    grad_norm: Tensor  # before clipping, over all workers
    applied: Tensor  # bool; False: it was not finite, or far above the usual, and the weights stayed as they were
    usual: Tensor  # the median of such steps before it; NaN after too few of them


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made of, on one rank, on the CPU. Tensors that are in `copies` are not there before it."""

    copies: Copies
    weights: dict[str, Tensor]  # the whole model on the rank that writes it; under ZeRO 3 what no rank has a part of
    moments: dict[str, Tensor]  # what this rank writes of the optimiser's state; see `optimizer_state`
    applied: int  # optimiser steps that were not skipped
    norms: dict[str, list[float]]  # of gradients, as `GradientNorms.state` gives them
    parts: dict[str, tuple[int, Tensor]] = field(default_factory=dict)  # ZeRO 3: this rank's run of each parameter
    # ZeRO 3: under which name each parameter is in parts, and its shape; tied ones are there once.
    shapes: dict[str, tuple[str, tuple[int, ...]]] | None = None


def prepare_environment(device: torch.device) -> None:
    """What has to hold before DeepSpeed is imported; asserts that the process group and its variables agree.

    Without these five variables DeepSpeed looks for mpi4py, and it takes its device from LOCAL_RANK (DeepSpeed#8444,
    ray#37212), so LOCAL_RANK is made to name the device that the worker was given.
    """
    assert dist.is_initialized(), "a worker joins the process group before it makes an engine"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ["LOCAL_RANK"] = str(device.index or 0)
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    assert not missing, f"{', '.join(missing)} must be set before DeepSpeed is initialised"
    assert int(os.environ["RANK"]) == dist.get_rank(), "RANK disagrees with the process group"
    assert int(os.environ["WORLD_SIZE"]) == dist.get_world_size(), "WORLD_SIZE disagrees with the process group"
    # Compiled ops are cached a node and user: two nodes on one shared home would race (DeepSpeed#3969).
    cache = Path(tempfile.gettempdir()) / f"torch-extensions-{os.getuid()}-{socket.gethostname()}"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(cache))


class Engine:
    """A model and its optimiser under DeepSpeed. All ranks make the same calls in the same order.

    Losses given to `backward` are this rank's part of the true global mean, so gradients are summed over ranks and
    micro-batches; DeepSpeed averages them over ranks, which `backward` makes good.

    Nothing here waits for the device. The norm of the gradient, whether it is finite and by how much it is clipped are
    tensors, which torch's fused AdamW takes as they are: it divides gradients by `grad_scale`, and leaves weights and
    moments alone where `found_inf` is 1. DeepSpeed's own norm, clipping and overflow check, which ask the device for a
    value at every step, are turned off.
    """

    def __init__(
        self,
        model: Trunk,
        stage: StageConfig,
        cluster: ClusterConfig,
        device: torch.device,
        backbone: GridNetwork | None = None,
        learning: BackboneConfig | None = None,
    ) -> None:
        """backbone: runs on the images of every batch; learning: how, if parts of it are trained."""
        prepare_environment(device)
        self._deepspeed = import_deepspeed()
        self.device, self.world = device, dist.get_world_size()
        # One worker has nothing to share out, and ZeRO's bookkeeping is a seventh of a small step's time on the host.
        self.zero_stage = int(self.world > 1) if cluster.zero_stage == "auto" else cluster.zero_stage
        self._copies: Copies | None = None  # of a checkpoint, until the next step
        self._timeout_s = cluster.timeout_s
        self._clip, self._norms = stage.clip, GradientNorms(stage.spike_factor, device)
        # Under ZeRO 3 no rank has the weights outside of a step: what is looked at beside it is put together in copies.
        self._spare = copy.deepcopy(backbone) if self.zero_stage == 3 else None
        trained = TrainingModel(model.to(device), None if backbone is None else backbone.to(device))
        groups = optimizer_state.parameter_groups(trained, stage, learning or BackboneConfig())
        if cluster.compile == "off":
            leave_out_compiler()
        self._adam = torch.optim.AdamW(groups, lr=stage.lr, betas=stage.betas, eps=1e-8, fused=True)
        if cluster.compile == "off":
            step_alone(self._adam)
        else:
            torch._dynamo.config.recompile_limit = COMPILED_SHAPES
            trained.compile(mode=cluster.compile, dynamic=False)
        self._engine, self._optimizer, _, _ = self._deepspeed.initialize(
            model=trained, optimizer=self._adam, config=_settings(cluster, self.zero_stage), dist_init_required=False
        )
        self._trained: TrainingModel = self._engine.module
        self.learning = [parameter for parameter in self._trained.parameters() if parameter.requires_grad]
        kept = self._trained.kept_parameters(remove_duplicate=True)
        self._pieces = optimizer_state.pieces(kept, self._optimizer, self.zero_stage, dist.get_rank())
        self._alone = self.world == 1 and self.zero_stage == 0
        if self._alone:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient to the sum of itself
        _limit_waits(cluster.timeout_s)

    @property
    def model(self) -> Trunk:
        """The network that is trained; under ZeRO 3 its parameters are empty outside of forward and backward."""
        return self._trained.model

    def forward(self, *arguments):
        """The losses of `TrainingModel.forward`, in the precision of the cluster settings."""
        return self._engine(*arguments)

    def aside(self, *arguments):
        """What `forward` gives, of the module alone: DeepSpeed takes no note of the pass."""
        from deepspeed.runtime.torch_autocast import autocast_if_enabled

        with autocast_if_enabled(self._engine):
            return self._engine.module(*arguments)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradient of this rank's part of the global loss; `last`: no micro-batch follows in this step."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world)

    def total(self, values: Tensor) -> Tensor:
        """Element by element, the sum over all ranks, on the device and without waiting for it."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def step(self, lr: float, task: str) -> StepResult:
        """One optimiser step of a task at this learning rate.

        Skipped, on all ranks alike, where the gradient is not finite or far above the usual for the task.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        if self._alone:
            # As DeepSpeed has it where it reduces: what a task does not use moves on by its momentum, and decays.
            for parameter in self.learning:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        norm = self._gradient_norm()
        applied, usual = self._norms.judge(task, norm)
        # torch's fused AdamW looks for both.
        self._adam.found_inf = (~applied).float()  # type: ignore[attr-defined]
        self._adam.grad_scale = (  # type: ignore[attr-defined]
            (norm / self._clip).clamp_min(1.0).nan_to_num(1.0, 1.0) if self._clip else None
        )
        self._settle()
        self._engine.step()
        if self.zero_stage == 3:
            # DeepSpeed 0.19.8 overwrites a parameter's gradient when the next one arrives, and not before: parameters
            # that the next task does not use would be updated again with the gradient of this one.
            self._optimizer.grad_partitions_flat_buffer.zero_()
        return StepResult(norm, applied, usual)

    def _gradient_norm(self) -> Tensor:
        """Of the whole gradient, over all ranks; a scalar on the device. Gradients have been reduced by `backward`."""
        if self.zero_stage == 0:  # every rank has all of it; the mean of them is the same in the last bit, too
            norm = nn.utils.get_total_norm([p.grad for p in self.learning if p.grad is not None])
            return self.total(norm) / self.world
        if self.zero_stage == 3:
            mine = [self._optimizer.grad_partitions_flat_buffer]
        else:
            mine = [gradient for group in self._optimizer.averaged_gradients.values() for gradient in group]
        return self.total(nn.utils.get_total_norm(mine).square()).sqrt()

    def weights(self) -> dict[str, Tensor]:
        """The state of all that is kept, as fp32 copies on the CPU; under ZeRO 3 all ranks call it, and gather it."""
        return self._gathered(self._trained.kept_parameters()) | self._buffers()

    def _gathered(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        state = {}
        for name, parameter in parameters.items():
            if self.zero_stage == 3:
                with self._deepspeed.zero.GatheredParameters([parameter]):
                    state[name] = parameter.detach().float().cpu().clone()
            else:
                state[name] = parameter.detach().float().cpu().clone()
        return state

    def _buffers(self) -> dict[str, Tensor]:
        kept = self._trained.kept.items()
        buffers = {prefix + name: buffer for prefix, part in kept for name, buffer in part.named_buffers()}
        wanted = self._trained.state_dict().keys()  # without the buffers that are not persistent
        found = {name: buffer.detach().cpu().clone() for name, buffer in buffers.items() if name in wanted}
        return {name: one.float() if one.is_floating_point() else one for name, one in found.items()}

    @contextmanager
    def whole_model(self) -> Iterator[TrainingModel]:
        """Network and backbone as they are now, to look at a batch outside of training; all ranks call it together.

        Under ZeRO 3 it is a copy: the trained module has no weights outside of a training step.
        """
        if self.zero_stage == 3:
            whole = TrainingModel(build(self.model.config), copy.deepcopy(self._spare))
            whole.load_state_dict(self.weights())
            yield whole.to(self.device)
            return
        try:
            yield self._trained
        finally:
            self.model.train()

    def snapshot(self, weights: bool, room: dict[str, Tensor] | None = None) -> Snapshot:
        """The state as it is now; the whole model only if `weights` says so, on one rank.

        Weights and moments are copied when the caller has `copies.make` called, in a thread of its own: the next step
        changes nothing before that is done. Under ZeRO 3 all ranks call it together.

        `room`: what holds the copies, from one call to the next: new memory takes longer to get than to fill. The
        copies of the call before are overwritten.
        """
        self._settle()
        copies = Copies({} if room is None else room, self.device)
        held = optimizer_state.to_write(self._pieces, self.zero_stage, dist.get_rank(), self.world)
        moments = copies.of("moments", optimizer_state.runs(held, self._adam.state))
        applied, norms = optimizer_state.applied_steps(self._pieces, self._adam.state), self._norms.state()
        # DeepSpeed gives them attributes of its own.
        parameters: dict[str, Any] = self._trained.kept_parameters()
        buffers = self._buffers() if weights else {}  # copied here: a forward pass may change them
        parts, shapes, whole = {}, None, {}
        if self.zero_stage == 3:
            runs = {piece.name: optimizer_state.run_of(piece, piece.owner) for piece in self._pieces}
            held_parts = copies.of("parts", runs)
            parts = {piece.name: (piece.start, held_parts[piece.name]) for piece in self._pieces}
            first = {id(parameter): name for name, parameter in reversed(parameters.items())}
            shapes = {name: (first[id(p)], tuple(p.ds_shape)) for name, p in parameters.items() if p.requires_grad}
            whole = self._gathered({name: p for name, p in parameters.items() if not p.requires_grad})
            whole = whole | buffers if weights else {}
        elif weights:
            whole = copies.of("weights", parameters) | buffers
        self._copies = copies
        return Snapshot(copies, whole, moments, applied, norms, parts, shapes)

    def _settle(self) -> None:
        """Waits for the copies of a checkpoint that are under way, before what they are made of changes."""
        if self._copies is not None:
            self._copies.wait(self._timeout_s)
            self._copies = None

    def restore(self, moments: Sequence[Path], applied: int, norms: Mapping[str, Sequence[float]]) -> None:
        """Takes the optimiser's state from files of any number of ranks and ZeRO stage; `applied`: its steps.

        `norms`: of the gradients of the last steps, as a `Snapshot` has them.
        """
        self._settle()
        optimizer_state.load(self._pieces, self._adam.state, moments, applied)
        self._norms.load_state(norms)

    def close(self) -> None:
        """Frees what DeepSpeed holds, so that the next stage can make an engine in the same process."""
        self._engine.destroy()


def _limit_waits(seconds: float) -> None:
    """Gives every process group this limit: DeepSpeed makes groups of its own and leaves them torch's 10 or 30 minutes.

    Without it a rank whose peer has gone would wait in a gradient collective far past `--cluster.timeout_s`.
    """
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def _settings(cluster: ClusterConfig, zero_stage: int) -> dict:
    """DeepSpeed's configuration.

    Batch sizes are 1: the worker cuts batches itself (their number differs from task to task) and names the last
    micro-batch of each step. bf16 is torch's autocast at every ZeRO stage: weights, gradients and optimiser stay fp32,
    whereas DeepSpeed's own bf16 mode takes another optimiser and path at stage 0.
    """
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Torch's optimiser: no op to compile.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": 0.0,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
        },
    }
    if zero_stage in (1, 2):
        settings["zero_optimization"]["compute_grad_norm"] = False
    if zero_stage == 3:
        # Nothing stays gathered between uses because it is small: this stage is about memory, not speed.
        settings["zero_optimization"] |= {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
    if cluster.precision == "bf16":
        # No module is "safe" to communicate in bf16: gradients are reduced in fp32 at every stage, as at stage 0.
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return settings
