"""What the tables of docs/results.md compare: their arms, each of them a training run but for its seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from cluster.config.fields import Config, task_batch_size
from cluster.config.options import options as all_options
from cluster.config.options import override, show
from cluster.recipes.commandline import load_recipe
from cluster.recipes.pairs import pairs
from shards.negatives.kinds import KINDS

Options = dict[str, str]
Seconds = dict[str, float]  # that a step of each stage takes

# One process of one thread: two at a time finish more on two cores than one of two threads.
COMMON = {"cluster.workers": "1", "cluster.threads": "1", "log.wandb": "disabled", "finetune.weights.fda": "0"}
# `small` names what is drawn and how, so that its tables can be compared whatever the recipe comes to draw.
SCALES: dict[str, Options] = {
    "small": {
        "data.shards": "data/blocks-1000", "data.blocks.scenes": "1000,150,250", "data.blocks.size": "160,120",
        "data.blocks.supersample": "2", "data.blocks.camera": "1", "backbone.size": "192,240", "pretrain.steps": "80",
        "finetune.steps": "240", "finetune.validate_every": "80",
    },
    "main": {"backbone.size": "160,240"},
}  # fmt: skip
MINUTES = {"small": 10.0, "main": 60.0}  # of training, where arms are compared at equal time
NEGATIVES = 3  # a pair, so that each of three lists can give one
SHARES = (10, 30, 100)  # percent of the training scenes whose pairs are there
RATE_STEPS = 12  # of each stage, to learn what a step takes
RECIPES_DIFFER = (
    "These are two recipes. Their difference says nothing of the networks alone. Ours also learns from labelled and "
    "captioned photos. The published one learns from pairs alone, with a two-hundredth or less of its schedule."
)
VALIDATIONS, VALIDATED = 20, 150  # points of a curve, pairs captioned at each


@dataclass(frozen=True)
class Arm:
    """A training run but for its seed."""

    name: str  # of the run folders, NAME-SEED
    label: str  # in the table
    options: Options
    recipe: str = "blocks"
    after: Arm | None = None  # the run of the stages that arms share, trained once a seed

    @property
    def config(self) -> Config:
        """The whole configuration."""
        return override(load_recipe(self.recipe), self.options.items())


@dataclass(frozen=True)
class Setting:
    """What the arms of a table are made from."""

    options: Options  # of all arms
    config: Config  # the recipe `blocks` with these
    minutes: float
    measure: Callable[[Arm], Seconds]  # trains a few steps where that has not been done


@dataclass(frozen=True)
class Table:
    """A question and the arms that answer it."""

    head: str  # of the column of labels
    arms: Callable[[Setting], list[Arm]]
    beside: Callable[[str], str]  # the name of an arm -> of the one that its gain is counted from
    curves: bool = False  # CIDEr over time is drawn too
    note: str = ""  # what a reader must know before the figures


def _regions(setting: Setting, kind: str = "both") -> Arm:
    """The region finder alone, taught by photos, so that it does not matter which pairs are there."""
    options = setting.options | {"pretrain.steps": "0"}
    if kind == "both":
        return Arm("regions", "", options)
    task = {"classes": "class_labels", "photos": "photo_labels"}[kind]
    return Arm(f"regions-{kind}", "", options | {"regions.ratios": f"{task}=1"})


def pretraining(setting: Setting) -> list[Arm]:
    """MLM, MVCL and FDA between the region finder and fine-tuning: each alone, all in turn, none."""
    found, options = _regions(setting), setting.options | {"regions.steps": "0"}
    steps = setting.config.finetune.steps + setting.config.stage("pretrain").steps
    without = options | {"pretrain.steps": "0"}
    tasks = {
        "mlm": ("MLM", "mlm=1"),
        "mvcl": ("MVCL", "mvcl=1"),
        "fda": ("FDA", "fda=1"),
        "all": ("MLM, MVCL, FDA", "mlm=1,mvcl=1,fda=1"),
    }
    return [
        Arm("none", "nothing", without, after=found),
        Arm("longer", "nothing, longer fine-tuning", without | {"finetune.steps": str(steps)}, after=found),
        *(
            Arm(name, label, options | {"pretrain.ratios": ratios}, after=found)
            for name, (label, ratios) in tasks.items()
        ),
    ]


def negatives(setting: Setting) -> list[Arm]:
    """FDA in pre-training, beside MLM and MVCL, and beside fine-tuning: its negatives from each union of lists."""
    found, options = _regions(setting), setting.options | {"regions.steps": "0"}
    arms = [Arm("none", "no FDA", options | {"pretrain.ratios": "mlm=1,mvcl=1"}, after=found)]
    options |= {"pretrain.ratios": "mlm=1,mvcl=1,fda=1", "finetune.weights.fda": "0.1"}
    unions = [[kind for place, kind in enumerate(KINDS) if union >> place & 1] for union in range(1, 2 ** len(KINDS))]
    for kinds in sorted(unions, key=len):
        drawn = {f"{stage}.negatives.kinds": ",".join(kinds) for stage in ("pretrain", "finetune")}
        drawn |= {f"{stage}.negatives.count": str(NEGATIVES) for stage in ("pretrain", "finetune")}
        arms.append(Arm("-".join(kinds), ", ".join(kinds), options | drawn, after=found))
    return arms


def expansion(setting: Setting) -> list[Arm]:
    """Labels of single photos, from none to both kinds, beside a part of the pairs; photos are always all there.

    Without photos the finder learns from the words of the pairs' own captions, as in the recipe `pairs`.
    """
    config = setting.config
    train, *others = config.data.blocks.scenes
    kinds = {
        "none": ("no photos", (), {"pair_labels": 1}),
        "classes": ("class photos", ("classes",), {"class_labels": 1}),
        "photos": ("captioned photos", ("photos",), {"photo_labels": 1}),
        "both": ("both", ("classes", "photos"), {"class_labels": 0.5, "photo_labels": 0.5}),
    }
    arms = []
    for share in SHARES:
        scenes = max(1, round(train * share / 100))
        for kind, (label, folders, ratios) in kinds.items():
            options = setting.options | {"pretrain.steps": "0", "finetune.ratios": show({"finetune": 6, **ratios})}
            if share < 100:
                options |= {
                    "data.shards": f"data/blocks-{scenes}", "data.blocks.scenes": show((scenes, *others)),
                    "data.blocks.class_photos": "0", **{f"data.{folder}": config.data.shards for folder in folders},
                }  # fmt: skip
            if folders:
                # The finder alone: the vocabulary, which the rest of the model depends on, is that of the captions.
                options |= {"regions.steps": "0", "finetune.start_parts": "finder"}
            else:
                options |= {"data.words": str(pairs().data.words), "regions.ratios": show(ratios)}
            after = _regions(setting, kind) if folders else None
            arms.append(Arm(f"{kind}-{share}", f"{share} %, {label}", options, after=after))
    return arms


def architecture(setting: Setting) -> list[Arm]:
    """The published network and ours: same data, tasks, sizes, optimiser and steps; then ours at equal time.

    The tasks are those that both can learn: labels of regions, which ours alone has, are taught to neither.
    """
    options = setting.options | {"finetune.ratios": "finetune=1", "finetune.weights.labels": "0", "regions.steps": "0"}
    stages = setting.config.pretraining
    options |= {"pretrain.steps": str(sum(stage.steps for stage in stages.values()))}
    paper = Arm("paper", "published, on grid cells", options | {"model.architecture": "paper"})
    ours = Arm("ours", "ours, on regions, as many steps", options | {"model.architecture": "idc"})
    factor = 60 * setting.minutes / _seconds(paper, setting.measure(paper))
    longest = dataclasses.replace(ours, name="ours_time", label="ours, as many minutes")
    equal_time = _scaled(longest, 60 * setting.minutes / _seconds(ours, setting.measure(ours)))
    return [_scaled(paper, factor), _scaled(ours, factor), equal_time]


def reference(setting: Setting) -> list[Arm]:
    """The published recipe beside ours, at equal time and at equal samples; they differ in data and tasks as well."""
    same = {
        one.name: show(one.value)
        for one in all_options(setting.config)
        if one.name.startswith(("data.", "backbone.", "cluster.", "log.")) and one.value not in ("", {}, ())
    }
    same |= {name: value for name, value in setting.options.items() if name.startswith("evaluate.")}
    # Ours too is 128 wide and has no dropout. Published: 512, 0.2, 200 pairs, of which 50 take a core half a minute.
    narrow = {"model.d_model": "128", "model.heads": "4", "model.d_ff": "512", "pretrain.batch_sizes": "fda=8"}
    narrow |= {"model.dropout": "0", "model.attention_dropout": "0"}
    for stage in ("pretrain", "finetune"):
        narrow |= {f"{stage}.global_batch_size": "60", f"{stage}.micro_batch_size": "60", f"{stage}.lr": "1e-3"}
    paper = Arm("paper", "published recipe, width 128, learning rate 1e-3, no dropout", same | narrow, "blocks_paper")
    ours = Arm("ours", "our recipe, with labelled and captioned photos", setting.options)
    timed = [_scaled(arm, 60 * setting.minutes / _seconds(arm, setting.measure(arm))) for arm in (paper, ours)]
    few = dataclasses.replace(ours, name="ours_samples", label="our recipe, as many samples")
    return [*timed, _scaled(few, _samples(timed[0]) / _samples(few))]


def _seconds(arm: Arm, step: Seconds) -> float:
    """What the whole schedule of an arm takes."""
    config = arm.config
    return sum(config.stage(name).steps * step[name] for name in config.stages if config.stage(name).steps)


def _samples(arm: Arm) -> float:
    """What the whole schedule of an arm looks at, on average over the draws of tasks."""
    total = 0.0
    for name in arm.config.stages:
        stage = arm.config.stage(name)
        drawn = sum(ratio * task_batch_size(stage, task) for task, ratio in stage.ratios.items())
        total += stage.steps * drawn / sum(stage.ratios.values())
    return total


def _scaled(arm: Arm, factor: float) -> Arm:
    """The arm with its whole schedule longer or shorter by a factor, and CIDEr along the way."""
    config, options = arm.config, dict(arm.options)
    for name in config.stages:
        stage = config.stage(name)
        if not stage.steps:
            continue
        steps = max(1, round(factor * stage.steps))
        options |= {
            f"{name}.steps": str(steps), f"{name}.warmup_steps": str(max(1, round(factor * stage.warmup_steps))),
            f"{name}.log_every": "1", f"{name}.checkpoint_every": str(max(1, steps // 4)), f"{name}.keep": "1",
        }  # fmt: skip
        if stage.halve_at:
            options[f"{name}.halve_at"] = show(tuple(round(factor * step) for step in stage.halve_at))
    every = -(-int(options["finetune.steps"]) // VALIDATIONS)
    options |= {"finetune.validate_every": str(every), "finetune.validate_limit": str(VALIDATED)}
    return dataclasses.replace(arm, options=options)


TABLES = {
    "pretraining": Table("pre-training", pretraining, lambda arm: "longer"),
    "negatives": Table("negatives of FDA", negatives, lambda arm: "none"),
    "expansion": Table("pairs, photos", expansion, lambda arm: f"none-{arm.partition('-')[2]}"),
    "architecture": Table("network", architecture, lambda arm: "paper", curves=True),
    "reference": Table("recipe", reference, lambda arm: "paper", curves=True, note=RECIPES_DIFFER),
}
