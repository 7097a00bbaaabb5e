"""The main job: `python cluster/train.py [RECIPE] [--stage all|train|pretrain|finetune|evaluate] [--option value]...`

No argument runs the recipe `blocks`, all stages. A run that was stopped goes on when the same command is given again.
--seeds 0,1,2 is three runs, and what they reach on average.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # `python cluster/train.py` puts cluster/ on the path, whose modules are not top-level ones
    sys.path[0] = str(ROOT)

from cluster.distributed.imports import quickly  # noqa: E402
from cluster.errors import exit_code  # noqa: E402
from cluster.recipes.commandline import help_text, parse  # noqa: E402
from shards.errors import run_main  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Runs the job; exit code 0, 1 where training failed, 3 where it diverged, 85 where it stopped as it was asked.

    2 (by run_main) for mistakes.
    """
    command = parse(arguments)
    if command.help:
        print(help_text(command.config))
        return 0
    from cluster.launch import asked

    with quickly():
        from cluster.pipeline import run
        from cluster.seeds import run_seeds

    with asked.listening():
        return exit_code(lambda: run_seeds(command) if command.seeds else run(command))


if __name__ == "__main__":
    run_main(main)
