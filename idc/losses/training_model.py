"""A model and its losses as one module: what a training engine wraps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from idc.losses import objectives
from idc.losses.objectives import LossSum, ObjectiveOptions
from idc.model.trunk import Trunk


class TrainingModel(nn.Module):
    """Its forward pass is that of a loss: engines (DeepSpeed, torch.compile) hook into `forward` alone.

    The network knows nothing of losses, and saved weights nothing of this wrapper: they have the network's names.
    """

    def __init__(self, model: Trunk) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, task: str, batch: Mapping[str, Tensor], options: ObjectiveOptions | None = None, apart: bool = False
    ) -> dict[str, LossSum] | tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """The loss sums and counts of one task on one batch; see `idc.losses.objectives` for tasks and batches.

        apart: `objectives.parts` instead, for a caller that compares the samples of several micro-batches.
        """
        return (objectives.parts if apart else objectives.losses)(
            self.model, task, batch, options or ObjectiveOptions()
        )

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """The network's state, under its own names."""
        return self.model.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Takes what `state_dict` gave."""
        return self.model.load_state_dict(*arguments, **options)
