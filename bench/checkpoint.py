"""How long training stands still for a checkpoint, and what writing it costs the steps beside it.

    python bench/checkpoint.py --recipe clevr_change --saves 5

The network of a recipe at its full size, one worker, random images. A synchronous save is timed from its beginning to
its commit. Of the others it is timed how long the training waits: for the call, and a step for the copy of the state.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from cluster.batches.batches import StepBatch  # noqa: E402
from cluster.config.fields import ClusterConfig  # noqa: E402
from cluster.distributed.ranks import Ranks  # noqa: E402
from cluster.recipes.registry import RECIPES  # noqa: E402
from cluster.training.checkpoint import Commit  # noqa: E402
from cluster.training.engine import Engine  # noqa: E402
from cluster.training.saving import Saver  # noqa: E402
from cluster.training.step import train_step  # noqa: E402
from idc.losses.objectives import prepare  # noqa: E402
from idc.model.build import build  # noqa: E402
from shards.errors import Parser, run_main  # noqa: E402

WORDS, GRID, CHANNELS, LENGTH = 9000, (7, 7), 2048, 12


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = Parser(prog="bench/checkpoint.py", description="Times checkpoints and the training beside them.")
    parser.add_argument("--recipe", default="clevr_change", choices=sorted(RECIPES), help="whose network it is")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step (default: %(default)s)")
    parser.add_argument("--saves", type=int, default=5, help="of each kind (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder on the disk to be timed (default: a temporary one)")
    options = parser.parse_args(arguments)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo")
    folder = Path(tempfile.mkdtemp(dir=options.out))
    try:
        print(_measured(options.recipe, options.batch, options.saves, folder))
    finally:
        shutil.rmtree(folder)
        dist.destroy_process_group()


def _measured(recipe: str, size: int, saves: int, folder: Path) -> str:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # as a worker has it; the writing has the other core
    config = RECIPES[recipe]()
    sizes = {"vocab_size": WORDS, "grid": GRID, "feature_dim": CHANNELS, "classes": 10}
    model = build(dataclasses.replace(config.model, caption_loss="causal", **sizes))
    engine = Engine(model, config.finetune, ClusterConfig(), torch.device("cpu"))
    images = {side: torch.randn(size, GRID[0] * GRID[1], CHANNELS) for side in ("before", "after")}
    captions = {"caption": torch.randint(6, WORDS, (size, LENGTH)), "changed": torch.ones(size, dtype=torch.long)}
    batch = StepBatch("finetune", [prepare("finetune", images | captions)], size)

    def step() -> float:
        began = time.perf_counter()
        train_step(engine, batch, config.finetune, 1e-4)
        return time.perf_counter() - began

    saver = Saver(folder / "finetune", Ranks(600), 600, 1)
    step()
    alone, beside, whole, taken = [], [], [], []
    for number in range(saves):
        alone += [step() for _ in range(3)]
        began = time.perf_counter()
        saver.save(engine, Commit("finetune", 2 * number + 1, 1, 0))
        saver.finish()
        whole.append(time.perf_counter() - began)
        saver.save(engine, Commit("finetune", 2 * number + 2, 1, 0))
        written = None
        while written is None:
            seconds = step()
            written = saver.check()
            if written is None:  # the whole step had the writing beside it
                beside.append(seconds)
        taken.append(written)
    engine.close()
    middle = statistics.median
    blocked = middle([one.blocked_s for one in taken])
    lines = [
        f"{recipe}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{taken[0].size / 2**20:.0f} MiB a checkpoint; medians of {saves}",
        f"synchronous save {middle(whole):.3f} s, beside training {middle([one.seconds for one in taken]):.3f} s",
        f"training stands still {blocked:.4f} s, {100 * blocked / middle(whole):.1f} % of a synchronous save",
        f"a step {middle(alone):.3f} s" + (f", beside the writing {middle(beside):.3f} s" if beside else ""),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
