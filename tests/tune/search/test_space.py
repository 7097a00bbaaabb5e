"""The search space: ranges as they are typed, defaults that follow the recipe, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.fields import Config
from cluster.config.options import override
from cluster.config.validation import validate
from cluster.errors import ConfigError
from cluster.recipes.registry import RECIPES
from tune.search.dimension import Dimension, is_range, option_values, parse_dimension, value_of, with_values
from tune.search.space import apply_options, recipe_point

LOG = Dimension("t", ("pretrain.mvcl_temperature",), 0.02, 2.0, log=True)
EVEN = Dimension("s", ("pretrain.label_smoothing",), 0.0, 0.5)
WHOLE = Dimension("n", ("pretrain.negatives.count",), 1, 6, whole=True)
KINDS = Dimension("k", ("pretrain.negatives.kinds",), choices=("replace", "retrieve,replace"))


def tiny(*options: tuple[str, str]) -> Config:
    return override(RECIPES["tiny"](), options)


@pytest.mark.parametrize("one", [LOG, EVEN, WHOLE, KINDS])
def test_what_is_sampled_is_possible_and_keeps_to_the_range(one: Dimension) -> None:
    generator, seen = np.random.default_rng(0), set()
    for _ in range(200):
        value = one.sample(generator)
        assert one.has(value) and 0 <= one.place(value) <= 1
        validate(with_values(tiny(), [one], {one.name: value}))
        seen.add(value)
    everything = {WHOLE.name: {1, 2, 3, 4, 5, 6}, KINDS.name: set(KINDS.choices)}.get(one.name)
    assert seen == everything if everything else len(seen) > 100


def test_a_log_range_gives_each_decade_its_share() -> None:
    generator = np.random.default_rng(0)
    values = [LOG.sample(generator) for _ in range(400)]
    assert 160 < sum(value < 0.2 for value in values) < 240


@given(st.floats(0, 1))
def test_places_and_values_are_inverse(share: float) -> None:
    for one in (LOG, EVEN):
        assert math.isclose(one.place(one.at(share)), share, abs_tol=1e-9)


def test_values_outside_are_brought_back() -> None:
    assert LOG.clamp(3.0) == 2.0 and LOG.clamp(0.001) == 0.02 and WHOLE.clamp(7.2) == 6 and KINDS.clamp("x") == "x"
    assert type(WHOLE.clamp(3.0)) is int


@pytest.mark.parametrize(
    ("text", "range_"),
    [("1..6", True), ("log:1e-4..1e-2", True), (".1..2", True), ("choice:a/b", True), ("log:x", True),
     ("0.5", False), ("retrieve,replace", False), ("../data/blocks", False), ("a..b", False), ("", False)],
)  # fmt: skip
def test_a_range_is_told_from_a_value(text: str, range_: bool) -> None:
    assert is_range(text) == range_


@pytest.mark.parametrize("text", ["log:0.02..2", "1..6", "choice:0.1/1"])
def test_a_dimension_is_shown_as_it_is_typed(text: str) -> None:
    name = "pretrain.negatives.count" if text == "1..6" else "pretrain.fda_temperature"
    assert str(parse_dimension(tiny(), name, (name,), text)) == text


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("pretrain.mvcl_temperatur", "log:0.1..1", "did you mean --pretrain.mvcl_temperature?"),
        ("pretrain.weights.mvlc", "0.1..1", "did you mean --pretrain.weights.mvcl?"),
        ("pretrain.mvcl_temperature", "log:0..1", "must begin above 0"),
        ("pretrain.mvcl_temperature", "1..0.1", "below the high end"),
        ("pretrain.mvcl_temperature", "log:1", "is no range"),
        ("pretrain.negatives.count", "1..2.5", "whole number"),
        ("pretrain.negatives.kinds", "1..2", "write choice:A/B/C"),
        ("pretrain.negatives.kinds", "choice:replace", "two values or more"),
        ("pretrain.negatives.kinds", "choice:replace/repalce", "did you mean replace?"),
        ("finetune.log_every", "1..5", "does not change what is learned"),
        ("cluster.workers", "1..2", "does not change what is learned"),
        ("name", "choice:a/b", "does not change what is learned"),
        ("finetune.lr", "fast", "not of the type float"),
    ],
)
def test_ranges_that_cannot_be_meant_are_refused(option: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=".") as error:
        apply_options(tiny(), [(option, text)])
    assert said in str(error.value) and f"--{option}" in str(error.value)


def test_a_value_fixes_a_dimension_and_a_range_changes_or_adds_one() -> None:
    config, dimensions = apply_options(
        tiny(), [("pretrain.weights.classify", "0.5"), ("finetune.lr", "log:1e-4..1e-3"),
                 ("finetune.label_smoothing", "0..0.2"), ("pretrain.ratios", "mlm=1,mvcl=2")],
    )  # fmt: skip
    names = {one.name: str(one) for one in dimensions}
    weights = config.pretraining["pretrain"].weights
    assert weights["class"] == weights["match"] == weights["class_contrastive"] == 0.5
    assert not {"pretrain.weights.classify", "pretrain.ratios.mvcl", "pretrain.weights.fda"} & names.keys()
    assert names["finetune.lr"] == "log:0.0001..0.001" and names["finetune.label_smoothing"] == "0..0.2"


def test_only_what_a_stage_does_is_varied() -> None:
    _, dimensions = apply_options(tiny(("pretrain.ratios", "mlm=1"), ("finetune.weights.fda", "0")), [])
    names = {one.name for one in dimensions}
    assert {"pretrain.weights.mlm", "finetune.weights.changed", "finetune.lr"} <= names
    assert not any("fda" in name or "mvcl" in name or "negatives" in name for name in names)


def test_weights_temperatures_ratios_and_negatives_are_varied_in_every_recipe() -> None:
    for name in ("tiny", "blocks", "blocks_paper"):
        config, dimensions = apply_options(RECIPES[name](), [])
        names = {one.name for one in dimensions}
        wanted = ("pretrain.mvcl_temperature", "pretrain.fda_temperature", "pretrain.weights.mlm", "finetune.lr",
                  "pretrain.weights.mvcl", "pretrain.weights.fda", "finetune.weights.changed", "pretrain.ratios.mvcl",
                  "pretrain.negatives.count", "pretrain.negatives.kinds")  # fmt: skip
        assert names >= set(wanted)
        assert all(one.log for one in dimensions if "temperature" in one.name)
        point = recipe_point(config, dimensions)
        assert point is not None and all(one.has(point[one.name]) for one in dimensions)


def test_the_recipes_own_point_is_the_recipe() -> None:
    config, dimensions = apply_options(tiny(), [])
    point = recipe_point(config, dimensions)
    same = with_values(config, dimensions, point)
    for one in dimensions:
        for option in one.options:
            assert value_of(same, option) == value_of(config, option)
    narrow = apply_options(tiny(), [("finetune.lr", "log:0.01..0.1")])
    assert recipe_point(*narrow) is None


def test_values_read_back_exactly() -> None:
    generator = np.random.default_rng(3)
    values = {"t": LOG.sample(generator), "n": WHOLE.sample(generator)}
    config = with_values(tiny(), [LOG, WHOLE], values)
    assert config.pretraining["pretrain"].mvcl_temperature == values["t"]
    assert dict(option_values([WHOLE], values)) == {"pretrain.negatives.count": str(values["n"])}
