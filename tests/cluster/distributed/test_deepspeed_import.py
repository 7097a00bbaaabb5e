"""What a worker that compiles nothing does without: torch's compiler, half of what there would be to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
STEPS = """
import sys, torch.distributed as dist
from testing.models.engines import make_engine, train
dist.init_process_group("gloo")
engine, stage = make_engine(1)
losses = train(engine, stage, range(3))
assert len(losses) == 3 and type(engine._optimizer).__name__ == "DeepSpeedZeroOptimizer"
print("compiler:", *(name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules))
"""


@pytest.mark.slow
def test_an_engine_and_its_steps_import_no_compiler() -> None:
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
            "OMP_NUM_THREADS": "1"}  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", STEPS], env=os.environ | rank | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("compiler:\n"), done.stdout + done.stderr
