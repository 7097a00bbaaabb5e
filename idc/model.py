"""Models by name."""

from __future__ import annotations

from idc.config import ModelConfig
from idc.trunk import Trunk


def build(config: ModelConfig) -> Trunk:
    """A freshly initialised model of the architecture that the configuration names; draws from torch's global RNG."""
    if config.architecture == "paper":
        from idc.paper import PaperModel

        return PaperModel(config)
    from idc.variant import RegionModel

    return RegionModel(config)
