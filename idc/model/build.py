"""Models by name."""

from __future__ import annotations

from idc.model.config import ModelConfig
from idc.model.trunk import Trunk


def build(config: ModelConfig) -> Trunk:
    """A freshly initialised model of the architecture that the configuration names; draws from torch's global RNG."""
    if config.architecture == "paper":
        from idc.model.paper import PaperModel

        return PaperModel(config)
    from idc.model.region_model import RegionModel

    return RegionModel(config)
