"""Console scripts and help: each script leads to a command that is there, and each says at once what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster.console import DOORS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted({*DOORS.values(), "shards.order", "idc.caption", "idc.reference"})
# What takes half a second and more to import.
HEAVY = {"torch", "ray", "deepspeed", "timm", "wandb", "sklearn", "optuna", "matplotlib", "pandas"}
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_every_script_has_a_door() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    ours = {name for name, target in scripts.items() if target == "cluster.console:run"}
    assert ours == set(DOORS) and "idc-score" in ours
    assert [module for module in DOORS.values() if find_spec(module) is None] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there_in_a_second(command: str) -> None:
    """Seconds depend on the machine and on who else uses it; what is imported does not."""
    done = subprocess.run([sys.executable, "-c", HELP, command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 5, done.stderr
    assert not HEAVY & set(done.stderr.rpartition("imported:")[2].split())


def test_tab_completes_the_options_that_help_lists() -> None:
    ask = "source docs/completion.bash; COMP_WORDS=(idc-train --finetune.val); COMP_CWORD=1; "
    ask = f'{ask}complete -p idc-train; _idc; echo "${{COMPREPLY[@]}}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    told, completed = done.stdout.splitlines()
    assert told == "complete -o default -F _idc idc-train", done.stderr
    assert completed == "--finetune.validate_every --finetune.validate_limit"
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "--shell=bash", "docs/completion.bash"], cwd=ROOT, check=True, timeout=60)
