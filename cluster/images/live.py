"""A backbone that runs in the training: what a worker holds of it from stage to stage."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cluster.config.fields import BackboneConfig, Config
from cluster.images.loaders import Loaders
from idc.backbone.backbone import RESIZE, Backbone
from idc.backbone.canvas import Canvas
from idc.backbone.network import GridNetwork

MOST = 16  # processes of a worker, where their number is left open


def open_loaders(config: Config, backbone: Mapping[str, Any], workers: int = 1) -> Loaders:
    """Processes that decode images for a backbone, as `Backbone.describe` has it, for one of so many workers here."""
    resampling = backbone["resize"].removeprefix(RESIZE)
    return Loaders(Canvas.of(backbone), resampling, _processes(config, workers))


def _processes(config: Config, workers: int) -> int:
    """How many: what is asked for, or this worker's share of the CPUs of its machine beside its own threads."""
    if config.data.loaders:
        return config.data.loaders
    share = len(os.sched_getaffinity(0)) // workers
    return min(max(share - config.cluster.threads, 1), MOST)


class Live:
    """A backbone with its first weights, and what decodes images for it."""

    def __init__(self, config: BackboneConfig, loaders: Loaders) -> None:
        """In fp32, as all that is trained; autocast computes in less. BackboneError where it cannot be had."""
        self.config, self.loaders = config, loaders
        fused = config.train == "none"
        first = Backbone(config.name, config.weights, config.size, config.strides, precision="fp32", fused=fused)
        # DeepSpeed sends and flattens weights row by row.
        self._first = first.network
        for parameter in self._first.parameters():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

    def network(self) -> GridNetwork:
        """A network for one stage, with the first weights; its parts that are to be trained want a gradient."""
        network = copy.deepcopy(self._first)
        network.train_parts(self.config.train)
        if self.config.checkpointing:
            network.save_memory()
        return network


@torch.no_grad()
def features_of(network: GridNetwork, pixels: Tensor, device: torch.device) -> Tensor:
    """Features (n, N, F) of images (n, H, W, 3), on the CPU; computed on the device, where the network then is."""
    return network.to(device)(pixels.to(device)).cpu()
