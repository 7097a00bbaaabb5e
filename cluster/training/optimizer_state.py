"""AdamW's groups of parameters, and its moments by parameter name: what one rank holds of them under DeepSpeed, at any
ZeRO stage, and back again.

Each rank writes what it holds, without a word to the others: whole tensors at stage 0, where ranks hold the same and
share the names out; runs of a flattened parameter at stages 1 to 3. Whoever reads puts together what it needs, so the
number of ranks and the stage may be others. Weights are not in here: AdamW's copy of them equals the model's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cluster.config.fields import BackboneConfig, StageConfig
from idc.losses.training_model import BACKBONE, TrainingModel
from shards.errors import DataError

MOMENTS = ("exp_avg", "exp_avg_sq")
_RUN = re.compile(r"(.+)\[(\d+):(\d+)\]")  # of a flattened parameter


def parameter_groups(trained: TrainingModel, stage: StageConfig, learning: BackboneConfig) -> list[dict[str, Any]]:
    """Groups as torch's optimisers take them: weight decay on matrices alone, not on biases and norms.

    "lr_scale" is the learning rate of a group as a share of the stage's: 1 for the network; for a layer of the backbone
    that has d layers behind it lr_decay^d times --backbone.lr / the peak of the stage.
    """
    backbone = trained.backbone
    depths = backbone.depths() if backbone is not None and backbone.trained != "none" else {}
    spared = backbone.not_decayed() if depths and backbone else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in trained.kept_parameters(remove_duplicate=True).items():
        if not parameter.requires_grad:
            continue
        own, scale = name.removeprefix(BACKBONE), 1.0
        if name.startswith(BACKBONE):
            scale = learning.lr / stage.lr * learning.lr_decay ** depths[own]
        decays = stage.weight_decay > 0 and parameter.dim() >= 2 and not (name.startswith(BACKBONE) and own in spared)
        groups[scale, stage.weight_decay if decays else 0.0].append(parameter)
    # The network's first; of each, those that decay.
    ordered = sorted(groups, key=lambda group: (group[0] != 1.0, -group[0], -group[1]))
    return [{"params": groups[key], "weight_decay": key[1], "lr_scale": key[0]} for key in ordered]


@dataclass(frozen=True)
class Piece:
    """A run of one flattened parameter that this rank's optimiser updates."""

    name: str  # of the parameter
    shape: tuple[int, ...]  # of the whole parameter
    start: int  # where the run begins in the flattened parameter
    length: int  # values
    owner: Tensor  # what the optimiser's state belongs to: the parameter, or a flat buffer of many
    offset: int  # where the run begins in `owner`, flattened

    @property
    def whole(self) -> bool:
        """Whether the run is all of the parameter."""
        return self.length == torch.Size(self.shape).numel()

    def key(self, moment: str) -> str:
        """Its name in a file: "exp_avg.NAME" for a whole tensor, "exp_avg.NAME[start:stop]" for a run."""
        return f"{moment}.{self.name}" + ("" if self.whole else f"[{self.start}:{self.start + self.length}]")


def pieces(parameters: Mapping[str, Any], optimizer: Any, zero_stage: int, rank: int) -> list[Piece]:
    """What this rank updates of parameters by name, under DeepSpeed's optimiser of that stage; tied ones once.

    Read from DeepSpeed 0.19.8: stages 1 and 2 cut one flat buffer a parameter group, which may end inside a parameter;
    stage 3 cuts every parameter into equal runs, the last ones padded.
    """
    found = []
    for name, parameter in parameters.items():  # DeepSpeed gives them attributes of its own
        if not parameter.requires_grad:
            continue
        if zero_stage == 0:
            found.append(Piece(name, tuple(parameter.shape), 0, parameter.numel(), parameter, 0))
        elif zero_stage == 3:
            group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = rank * length
            length = min(length, parameter.ds_numel - start)
            if length > 0:
                owner = optimizer.fp32_partitioned_groups_flat[group]
                found.append(Piece(name, tuple(parameter.ds_shape), start, length, owner, offset))
        elif (mapping := parameter._hp_mapping) is not None:
            here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
            owner = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            found.append(Piece(name, tuple(parameter.shape), here.start, here.numel, owner, there.start))
    return found


def to_write(held: Sequence[Piece], zero_stage: int, rank: int, world: int) -> Sequence[Piece]:
    """The pieces that this rank writes: all it holds, or at stage 0, where all hold the same, its share of them."""
    return held[rank::world] if zero_stage == 0 else held


def runs(written: Sequence[Piece], state: Any) -> dict[str, Tensor]:
    """The moments of these pieces by their names in a file, on the optimiser's device; `state`: the optimiser's."""
    found = {}
    for piece in written:
        for moment in MOMENTS:
            run = run_of(piece, state[piece.owner][moment])
            found[piece.key(moment)] = run.view(piece.shape) if piece.whole else run
    return found


def run_of(piece: Piece, tensor: Tensor) -> Tensor:
    """(length,): the piece's run of a tensor that is laid out like its owner."""
    return tensor.detach().view(-1).narrow(0, piece.offset, piece.length)


def applied_steps(written: Sequence[Piece], state: Any) -> int:
    """Steps that the optimiser has taken, skipped ones not counted: AdamW's bias correction goes by them."""
    return int(state[written[0].owner]["step"].item()) if written else 0


def load(held: Sequence[Piece], state: Any, files: Sequence[Path], steps: int) -> None:
    """Gives the optimiser the moments in `files`, of which this rank takes its pieces, and its number of steps.

    Raises DataError if the files do not hold all of a piece.
    """
    saved = _Saved(files)
    for piece in held:
        entry = state[piece.owner]
        if "step" not in entry:
            entry["step"] = torch.zeros((), dtype=torch.float32, device=piece.owner.device)
        entry["step"].fill_(float(steps))
        for moment in MOMENTS:
            if moment not in entry:  # padding between parameters stays 0
                entry[moment] = torch.zeros_like(piece.owner, memory_format=torch.preserve_format)
            run = entry[moment].view(-1).narrow(0, piece.offset, piece.length)
            for at, values in saved.read(f"{moment}.{piece.name}", piece.start, piece.length):
                run.narrow(0, at, len(values)).copy_(values)


class _Saved:
    """The moments in the files of all ranks that wrote them; read run by run, so that no rank holds all of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = []
        self._runs: dict[str, list[tuple[int, int | None, Any, str]]] = {}
        for path in files:
            try:
                file = safe_open(path, "pt")
            except (OSError, SafetensorError) as error:
                raise DataError(f"{path} cannot be read ({error})") from None
            self._files.append(file)
            for key in file.keys():
                cut = _RUN.fullmatch(key)
                name, start, stop = (cut[1], int(cut[2]), int(cut[3])) if cut else (key, 0, None)
                self._runs.setdefault(name, []).append((start, stop, file, key))
        self._where = files[0].parent if files else None

    def read(self, name: str, start: int, length: int) -> Iterator[tuple[int, Tensor]]:
        """(place in the run asked for, values), until all of it has been given; DataError if some of it is missing."""
        missing = length
        for first, stop, file, key in self._runs.get(name, ()):
            whole = None
            if stop is None:
                whole = file.get_tensor(key).flatten()
                stop = len(whole)
            begin, end = max(start, first), min(start + length, stop)
            if begin < end:
                source = whole if whole is not None else file.get_slice(key)
                yield begin - start, source[begin - first : end - first]
                missing -= end - begin
        if missing:
            raise DataError(f"{self._where} lacks {missing} of {length} values of {name}")
