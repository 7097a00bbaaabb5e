"""A sweep and the runs it is made of: their configurations, names and keys, and what they share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config.fields import Config
from cluster.config.options import deciding, override
from cluster.config.validation import validate
from cluster.training.checkpoint import COMMIT
from tune.search.dimension import Dimension, Value, with_values

SWEEPS = "sweeps"  # below runs/
# CIDEr on the validation split, of the checkpoint that a run keeps by its recipe's `finetune.select`.
METRIC = "CIDEr"
TPE, RANDOM, GRID, PBT = SEARCHES = ("tpe", "random", "grid", "pbt")
KEY_LENGTH = 12  # hexadecimal digits


@dataclass(frozen=True)
class Donor:
    """The checkpoint of another trial that a trial of a population goes on from."""

    run: str  # key of the run folder
    step: int
    trial: str  # Ray's id of the trial that wrote it


@dataclass(frozen=True)
class Plan:
    """What a sweep does; plain values, so that it pickles."""

    name: str
    root: Path
    config: Config  # the recipe with the fixed options; its name and root do not count
    dimensions: tuple[Dimension, ...]
    search: str

    @property
    def folder(self) -> Path:
        """runs/sweeps/NAME."""
        return self.root / "runs" / SWEEPS / self.name

    def of_seed(self, seed: int) -> Plan:
        """The same sweep with the recipe under another seed, data aside: its trials have keys of their own."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, seed=seed))

    def trial_folder(self, key: str) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / key

    def config_of(self, values: Mapping[str, Value]) -> Config:
        """The whole configuration of a trial, all its stages in it. ConfigError where it is impossible."""
        config = with_values(self.config, self.dimensions, values)
        validate(config)
        return config

    def key(self, values: Mapping[str, Value], donor: Donor | None = None) -> str:
        """The name of a trial's run folder: a hash of everything that decides what it learns."""
        learned = deciding(self.config_of(values))
        return _hash(learned if donor is None else learned | {"donor": dataclasses.astuple(donor)})

    def run_config(self, key: str, values: Mapping[str, Value]) -> Config:
        """The configuration of a trial's own run: without the stages that are shared, starting from them."""
        config = self.config_of(values)
        shared = shared_stages(self.config, self.dimensions)
        if shared:
            start = Path("runs", SWEEPS, self.name, "pretraining", self.pretraining_key(config))
            changes = [(f"{name}.steps", 0) for name in shared] + [("init", str(start))]
            config = override(config, changes)
        finetune = config.finetune
        if finetune.validate_every % finetune.checkpoint_every:
            # Each validation needs a checkpoint: another trial may go on from it.
            config = override(config, [("finetune.checkpoint_every", finetune.validate_every)])
        return self._placed(config, f"trials/{key}")

    def pretraining_key(self, config: Config) -> str:
        """The name of the run folder of the shared stages: a hash of what they depend on."""
        shared = shared_stages(self.config, self.dimensions)
        others = {name for name in config.stages if name not in shared}
        return _hash({name: one for name, one in deciding(config).items() if name.partition(".")[0] not in others})

    def pretraining_config(self, config: Config) -> Config:
        """The configuration of the run of the shared stages of a trial's whole configuration."""
        shared = shared_stages(self.config, self.dimensions)
        later = [(f"{name}.steps", 0) for name in config.pretraining if name not in shared]
        return self._placed(override(config, later), f"pretraining/{self.pretraining_key(config)}")

    def _placed(self, config: Config, where: str) -> Config:
        return dataclasses.replace(config, name=f"{SWEEPS}/{self.name}/{where}", root=str(self.root))


@dataclass(frozen=True)
class Sweep:
    """What the user asked for."""

    plan: Plan
    recipe: str
    given: tuple[tuple[str, str], ...]  # options and ranges as they were typed
    target: int  # trials of the search
    top: int  # the best trials that are trained again with further seeds
    repeats: int  # further seeds
    help: bool = False

    @property
    def further_seeds(self) -> tuple[int, ...]:
        """Those after the recipe's own."""
        return tuple(self.plan.config.seed + number for number in range(1, self.repeats + 1))


def shared_stages(config: Config, dimensions: Sequence[Dimension]) -> tuple[str, ...]:
    """The leading pre-training stages that trials can have in common: only choices, if anything, touch them.

    Numbers differ from trial to trial, so what they touch belongs to the trial's own run.
    """
    numbers = {option.partition(".")[0] for one in dimensions if not one.choices for option in one.options}
    if numbers - set(config.stages):  # of the model, the data, the seed
        return ()
    shared = []
    for name in config.pretraining:
        if name in numbers:
            break
        shared.append(name)
    following = any(config.stage(name).steps for name in config.stages[len(shared) :])
    if not following or not any(config.stage(name).steps for name in shared):
        return ()
    return tuple(shared)


def has_finished(run: Path, config: Config, stages: Iterable[str]) -> bool:
    """Whether each of these stages of a run folder has its last checkpoint."""
    done = (run / "checkpoints" / name / f"step_{config.stage(name).steps:08d}" / COMMIT for name in stages)
    return all(path.is_file() for path, name in zip(done, stages, strict=True) if config.stage(name).steps)


def _hash(values: dict) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=KEY_LENGTH // 2).hexdigest()
