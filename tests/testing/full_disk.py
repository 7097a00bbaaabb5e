"""`python -m testing.full_disk FOLDER`: saves checkpoints onto a file system of which more and more is taken away.

Prints what was said at each try, as JSON. Run in a mount namespace of its own, on a small tmpfs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from testing.multirank import run_ranks


def fill_and_save(folder: Path) -> dict[str, Any]:
    """One good checkpoint; others for which 0 to 90 % of the room is there; then one more with the room back."""
    from cluster.distributed.ranks import Ranks
    from cluster.errors import NoSpaceError
    from cluster.training import checkpoint
    from cluster.training.checkpoint import Commit
    from testing.engines import make_engine

    ranks, stage_folder, filler = Ranks(60), folder / "checkpoints" / "finetune", folder / "filler"
    engine, _ = make_engine(0)

    def save(step: int) -> None:
        checkpoint.save(stage_folder, engine, Commit("finetune", step, 1, 0), 0, ranks.barrier, keep=9)

    save(1)
    size = sum(checkpoint.latest(stage_folder).commit.files.values())
    said = []
    for share in (0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9):
        room = os.statvfs(folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(room.f_bavail * room.f_frsize - share * size) or 1)
        try:
            save(2)
            said.append("saved")
        except NoSpaceError as error:
            said.append(str(error))
        filler.unlink()
    left = sorted(path.name for path in stage_folder.iterdir())
    save(2)
    kept = [found.commit.step for found in checkpoint.find(stage_folder)]
    engine.close()
    return {"said": said, "left": left, "kept": kept}


if __name__ == "__main__":
    print(json.dumps(run_ranks(1, fill_and_save, Path(sys.argv[1]))[0]))
