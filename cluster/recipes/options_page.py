"""docs/options.md from the fields of the configuration: `python -m cluster.recipes.options_page > docs/options.md`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from cluster.config.fields import DERIVED, Config, StageConfig, is_harmless
from cluster.config.options import Option, options, show, type_name
from cluster.recipes.commandline import STAGE_CHOICES
from idc.model.config import SIZES
from shards.errors import run_main

STAGE = "STAGE"  # stands for the name of any pre-training stage
HEAD = f"""# Options

Every option of `cluster/train.py`, made from the fields of the configuration. `python cluster/train.py RECIPE --help`
prints the same list with the values of a recipe.

- `--stage {"|".join(STAGE_CHOICES)}` says which stages run.
- `--seeds 0,1,2` does the command with each of these training seeds, in `runs/NAME-seeds/seed_N`, and then writes the
  mean and the spread of their scores: `seeds.json`, `seeds.html`. A seed that is done is left as it is.
- `--pretraining edits` trains on edits of the pairs' own training photos first, in `runs/NAME-edits`, and starts from
  that model.
- `--model.size {"|".join(SIZES)}` stands for the sizes of that name (`idc/model/config.py`): `d_model`, `heads`,
  `d_ff`, `cross_modal_blocks` and `cell_size`. Options for single ones of them have precedence.
- `{STAGE}` is the name of a pre-training stage: `--pretrain.steps`, `--regions.lr`. The stage `finetune` has all of
  these options, and more.
- A type `A,B` is a tuple: `--backbone.size 128,160`. A type `NAME=FLOAT,...` is a table:
  `--pretrain.ratios mlm=8,fda=2` replaces all of it, `--pretrain.ratios.mlm 8` sets one entry.
- `''` is empty, `none` is nothing. Defaults are those of the fields. **A recipe may set others**: `blocks` does for
  most stages.
- *resume*: the option may have another value when a run is resumed. All others are part of the run.
"""
ABOUT = {
    "": "The run",
    "data": "Data",
    "backbone": "Backbone",
    "model": "Network",
    STAGE: "Every training stage",
    "finetune": "Fine-tuning, beside those of every stage",
    "evaluate": "Evaluation",
    "cluster": "Workers and machines",
    "log": "Logs",
}


def page() -> str:
    """The whole page, Markdown."""
    rows: dict[str, list[str]] = {part: [] for part in ABOUT}
    for option in _shown():
        part = option.name.split(".")[0] if "." in option.name else ""
        rows[part].append(_row(option))
    table = "| option | type | default | resume | meaning |\n|---|---|---|---|---|\n"
    return HEAD + "".join(f"\n## {title}\n\n{table}{''.join(rows[part])}" for part, title in ABOUT.items())


def _shown() -> Iterator[Option]:
    """What a user can set, in the order of the fields; of fine-tuning what other stages have not."""
    common = {field.name for field in dataclasses.fields(StageConfig)}
    for option in options(dataclasses.replace(Config(), pretraining={STAGE: StageConfig()})):
        part, _, rest = option.name.partition(".")
        if option.name not in DERIVED and not (part == "finetune" and rest.split(".")[0] in common):
            yield option


def _row(option: Option) -> str:
    cells = [f"`--{option.name}`", f"`{type_name(option.type)}`", f"`{show(option.value)}`"]
    cells += ["yes" if is_harmless(option.name) else "", option.comment.replace("<", "&lt;")]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def main(arguments: Sequence[str]) -> int:
    """Prints the page."""
    sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    run_main(main)
