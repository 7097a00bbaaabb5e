"""The network of a backbone: which parts are trained, what they keep, and weights that come back from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from idc.backbone.backbone import Backbone
from idc.backbone.network import GridNetwork, last_layers, untrained
from idc.backbone.weights import BackboneError, read_conventions, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


def pixels(number: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (number, height, width, 3), dtype=np.uint8))


def trained_names(network: GridNetwork) -> set[str]:
    return {name for name, parameter in network.net.named_parameters() if parameter.requires_grad}


def test_the_last_layers_are_trained() -> None:
    network = untrained("test_vit", (32, 48), train="last:2")
    assert {name.split(".")[1] for name in trained_names(network) if name.startswith("blocks")} == {"4", "5"}
    assert {"norm.weight", "norm.bias"} < trained_names(network) and "pos_embed" not in trained_names(network)
    depths = network.depths()
    assert depths.keys() == trained_names(network)
    assert (depths["norm.weight"], depths["blocks.5.mlp.fc1.bias"], depths["blocks.4.mlp.fc1.bias"]) == (0, 0, 1)
    network.train_parts("all")
    assert network.depths()["pos_embed"] == 6 and {"pos_embed", "cls_token"} <= network.not_decayed()
    network.train_parts("none")
    assert not trained_names(network) and not network(pixels()).requires_grad
    with pytest.raises(BackboneError, match="last:8: the backbone test_vit has 7 layers"):
        network.train_parts("last:8")
    with pytest.raises(BackboneError, match="'half' is not none, all or last:N"):
        last_layers("half")


def test_batch_norms_keep_their_statistics_while_they_are_trained() -> None:
    torch.manual_seed(0)
    network = untrained("test_resnet", (32, 48), train="all")
    network.train()
    before = {name: buffer.clone() for name, buffer in network.net.named_buffers()}
    network(pixels()).square().mean().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.net.named_buffers())
    norms = [module for module in network.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sum(bool(norm.weight.grad.abs().sum() > 0) for norm in norms) > 2, "their scales are trained"


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for saving in (False, True):
        torch.manual_seed(0)
        network = untrained("test_vit", (32, 48), train="all", checkpointing=saving)
        network(pixels()).square().mean().backward()
        found.append([parameter.grad for parameter in network.net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_trained_weights_come_back_from_a_file(tmp_path: Path) -> None:
    """With the padding, the epsilon and the mean that those of the package were trained with."""
    first = Backbone(size=(32, 48), precision="fp32", fused=False)
    with torch.no_grad():
        for parameter in first.network.net.parameters():
            parameter.mul_(1.01)
    images = list(pixels().numpy())
    expected = first.features(images)
    save_weights(tmp_path / "backbone.safetensors", first.network.net.state_dict(), first.conventions)
    again = Backbone(weights=str(tmp_path / "backbone.safetensors"), size=(32, 48), precision="fp32", fused=False)
    assert torch.equal(again.features(images), expected)
    assert again.conventions == first.conventions and again.same_padding and again.mean == first.mean
    assert not torch.equal(Backbone(size=(32, 48), precision="fp32").features(images), expected)
    (tmp_path / "other.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b'{"a":{} ')
    with pytest.raises(BackboneError):
        Backbone(weights=str(tmp_path / "other.safetensors"), size=(32, 48))
    assert read_conventions(tmp_path / "backbone.safetensors")["arguments"] == {"pad_type": "same", "bn_eps": 1e-3}
