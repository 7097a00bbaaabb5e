"""A model, the backbone that is trained or runs beside it, and its losses as one module: what an engine wraps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from idc.backbone.network import GridNetwork
from idc.losses import objectives
from idc.losses.objectives import LossSum, ObjectiveOptions
from idc.model.trunk import Trunk

BACKBONE = "backbone."


class TrainingModel(nn.Module):
    """Its forward pass is that of a loss: engines (DeepSpeed, torch.compile) hook into `forward` alone.

    The network knows nothing of losses, and saved weights nothing of this wrapper: they have the network's names, and
    those of a trained backbone begin with BACKBONE.
    """

    def __init__(self, model: Trunk, backbone: GridNetwork | None = None) -> None:
        """backbone: of batches that have images (B, H, W, 3) in the place of features."""
        super().__init__()
        self.model, self.backbone = model, backbone

    @property
    def kept(self) -> dict[str, nn.Module]:
        """The parts that a checkpoint holds, by what their names begin with; a frozen backbone is none of them."""
        trained = self.backbone is not None and self.backbone.trained != "none"
        return {"": self.model} | ({BACKBONE: self.backbone.net} if trained and self.backbone else {})

    def kept_parameters(self, remove_duplicate: bool = False) -> dict[str, nn.Parameter]:
        """Their parameters by name; tied ones once, or under each of their names."""
        return {
            prefix + name: parameter
            for prefix, part in self.kept.items()
            for name, parameter in part.named_parameters(remove_duplicate=remove_duplicate)
        }

    def seen(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A batch with features in place of its images."""
        return batch if self.backbone is None else self.backbone.seen(batch)

    def forward(
        self, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions | None = None, apart: bool = False
    ) -> dict[str, LossSum] | tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """The loss sums and counts of one task on one batch; see `idc.losses.objectives` for tasks and batches.

        apart: `objectives.parts` instead, for a caller that compares the samples of several micro-batches.
        """
        return (objectives.parts if apart else objectives.losses)(
            self.model, task, self.seen(batch), options or ObjectiveOptions()
        )

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """The state of what is kept, under its own names."""
        parts = {prefix: part.state_dict(*arguments, **options) for prefix, part in self.kept.items()}
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *arguments: Any, **options: Any) -> Any:
        """Takes what `state_dict` gave."""
        network, of_backbone = apart(state_dict)
        if self.backbone is not None and of_backbone:
            self.backbone.net.load_state_dict(of_backbone, *arguments, **options)
        return self.model.load_state_dict(network, *arguments, **options)


def apart(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint: the network's, and those of a trained backbone under timm's names."""
    of_backbone = {name.removeprefix(BACKBONE): one for name, one in weights.items() if name.startswith(BACKBONE)}
    return {name: one for name, one in weights.items() if not name.startswith(BACKBONE)}, of_backbone
