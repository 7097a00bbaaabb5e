"""One dimension of a search space: how a range is written, sampled, clamped, and put on a scale from 0 to 1."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np

from cluster.config.fields import Config
from cluster.config.options import options, override, show
from cluster.errors import ConfigError

Value = float | int | str  # of a choice: the text that stands behind its option
SYNTAX = "LOW..HIGH, log:LOW..HIGH or choice:A/B/C"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")


@dataclass(frozen=True)
class Dimension:
    """What a sweep varies: `options` of the configuration that get the same value. Numbers or choices, never both."""

    name: str  # as it is written on the command line and in tables
    options: tuple[str, ...]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # whole numbers
    choices: tuple[str, ...] = ()

    def sample(self, generator: np.random.Generator) -> Value:
        """A value drawn evenly over the range (over its logarithm, where log) or the choices."""
        return self.at(float(generator.random()))

    def at(self, share: float) -> Value:
        """The value at a place between 0, the low end, and 1."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.whole and not self.log:
            return int(min(self.low + math.floor(share * (self.high - self.low + 1)), self.high))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + share * (high - low)
        return self.clamp(math.exp(value) if self.log else value)

    def place(self, value: Value) -> float:
        """Where a value lies between the ends, 0 to 1; of a choice, the middle of its share."""
        if self.choices:
            return (self.choices.index(str(value)) + 0.5) / len(self.choices)
        low, high, value = self.low, self.high, float(value)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def clamp(self, value: Value) -> Value:
        """The nearest value inside the range."""
        if self.choices:
            return value
        value = min(max(float(value), self.low), self.high)
        return round(value) if self.whole else value

    def has(self, value: Value) -> bool:
        """Whether a value lies inside the range."""
        return str(value) in self.choices if self.choices else self.low <= float(value) <= self.high

    def __str__(self) -> str:
        if self.choices:
            return "choice:" + "/".join(self.choices)
        return f"{'log:' if self.log else ''}{self.low:g}..{self.high:g}"


def is_range(text: str) -> bool:
    """Whether the value of an option is a range and not a value."""
    return bool(_RANGE.fullmatch(text)) or text.startswith(("choice:", "log:"))


def parse_dimension(config: Config, name: str, setting: Sequence[str], text: str) -> Dimension:
    """The dimension that `--name text` means. ConfigError where the range or its ends are impossible."""
    kind, option = option_type(config, setting[0]), f"--{name} {text}"
    if text.startswith("choice:"):
        choices = tuple(dict.fromkeys(one.strip() for one in text.removeprefix("choice:").split("/")))
        if len(choices) < 2:
            raise ConfigError(f"{option}: a choice needs two values or more, as in choice:1/6")
        dimension = Dimension(name, tuple(setting), choices=choices)
        _check_ends(config, dimension, choices)
        return dimension
    match = _RANGE.fullmatch(text)
    if not match:
        raise ConfigError(f"{option} is no range: write {SYNTAX}")
    if kind not in (int, float):
        raise ConfigError(f"{option}: this option is no number; write choice:A/B/C")
    log, low, high = bool(match[1]), float(match[2]), float(match[3])
    if low >= high:
        raise ConfigError(f"{option}: the low end must be below the high end")
    if log and low <= 0:
        raise ConfigError(f"{option}: a log range must begin above 0")
    if kind is int and (low != int(low) or high != int(high)):
        raise ConfigError(f"{option}: this option is a whole number")
    dimension = Dimension(name, tuple(setting), low, high, log, kind is int)
    _check_ends(config, dimension, (dimension.clamp(low), dimension.clamp(high)))
    return dimension


def _check_ends(config: Config, dimension: Dimension, values: Sequence[Value]) -> None:
    """Each value must be one that the option takes; what it may be together with others is for `validate`."""
    for value in values:
        with_values(config, (dimension,), {dimension.name: value})


def option_type(config: Config, option: str) -> Any:
    """The type of a dotted option, of an entry of a table too; ConfigError where there is none."""
    known = {one.name: one.type for one in options(config)}
    if option in known:
        return known[option]
    table, _, key = option.rpartition(".")
    if table in known and get_origin(known[table]) is dict:
        override(config, [(option, "1")])  # refuses a key that the table cannot have
        return get_args(known[table])[1]
    override(config, [(option, "1")])
    raise AssertionError(f"{option} is an option of no known type")


def value_of(config: Config, option: str) -> Value:
    """The value of a dotted option as a dimension has it; of a loss weight that is not set, what it is then."""
    known = {one.name: one.value for one in options(config)}
    if option in known:
        value = known[option]
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else show(value)
    table, _, key = option.rpartition(".")
    if key in known[table]:
        return known[table][key]
    if not table.endswith(".weights"):
        return 0
    return 0.0 if table == "finetune.weights" and key == "fda" else 1.0


def with_values(config: Config, dimensions: Sequence[Dimension], values: Mapping[str, Value]) -> Config:
    """The configuration with a value for every dimension. ConfigError where one is not possible."""
    return override(config, option_values(dimensions, values))


def option_values(dimensions: Sequence[Dimension], values: Mapping[str, Value]) -> list[tuple[str, str]]:
    """(dotted option, text) for every dimension, as they are typed; a float in full, so that it reads back the same."""
    return [(option, str(values[one.name])) for one in dimensions for option in one.options]
