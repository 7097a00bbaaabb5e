"""Options of live backbones and of augmentation: what cannot stand together is one line with the option and the fix."""

from __future__ import annotations

import pytest

from cluster.config.fields import Config
from cluster.errors import ConfigError
from cluster.prepare import check_backbone
from cluster.recipes.commandline import parse

LIVE = ["--backbone.mode", "live"]


def given(*words: str) -> Config:
    return parse(["tiny", *words]).config


@pytest.mark.parametrize(
    "words, message",
    [
        (["--backbone.train", "all"], "--backbone.train all needs --backbone.mode live"),
        ([*LIVE, "--backbone.train", "last:0"], "--backbone.train 'last:0' is not none, all or last:N, such as last:2"),
        ([*LIVE, "--backbone.train", "all", "--backbone.lr", "0"], "--backbone.lr must be more than 0"),
        ([*LIVE, "--backbone.train", "all", "--backbone.lr_decay", "1.5"], "--backbone.lr_decay must be more than 0"),
        (
            [*LIVE, "--backbone.lr", "1e-4"],
            "--backbone.lr 0.0001 has no effect: --backbone.train is none; leave it out",
        ),
        (["--data.augment.mirror", "true"], "--data.augment.mirror true has no effect: --backbone.mode cached reads"),
        ([*LIVE, "--data.augment.light", "0.7"], "--data.augment.light is 0.7 and cannot be more than 0.5"),
        (
            [*LIVE, "--data.features_on", "cpu"],
            "--data.features_on cpu has no effect: --backbone.mode live reads images",
        ),
        ([*LIVE, "--data.loaders", "-1"], "--data.loaders is -1 and must be 0 or more"),
    ],
)
def test_what_cannot_be(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as said:
        given(*words)
    assert str(said.value).startswith(message) and "\n" not in str(said.value)


def test_more_layers_than_there_are(tmp_path) -> None:
    with pytest.raises(ConfigError, match="--backbone.train last:99: the backbone efficientnet_lite0 has 12 layers"):
        check_backbone(given(*LIVE, "--backbone.train", "last:99"), tmp_path)
