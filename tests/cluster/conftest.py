"""The recipe `tiny` over its data, for all tests of this folder."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.config.fields import Config
from cluster.config.options import override
from cluster.recipes.registry import RECIPES


@dataclass(frozen=True)
class Tiny:
    """The recipe `tiny` over data that are there: its sizes filled in, its root a temporary folder."""

    config: Config
    root: Path
    shards: Path
    features: Path

    def with_options(self, **changes: str) -> Config:
        """The configuration with dotted options changed; two underscores stand for the dot."""
        return override(self.config, [(name.replace("__", "."), value) for name, value in changes.items()])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Tiny:
    from cluster.prepare import prepare_training, with_sizes

    root = tmp_path_factory.mktemp("tiny")
    shutil.copytree(tiny_data, root / "data")
    config = dataclasses.replace(RECIPES["tiny"](), root=str(root))
    config = override(config, [("log.wandb", "disabled"), ("data.pack_workers", "1")])
    training = prepare_training(config, root)
    data = training.data
    return Tiny(with_sizes(config, training), root, data.shards.path, data.features.path)
