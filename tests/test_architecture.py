"""The rooms as the design has them: arrows downward alone, no circles, small folders, small files."""

from __future__ import annotations

import ast
import collections
import subprocess
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("idc", "shards", "cluster", "tune", "bench")
BELOW = {
    "idc": set(),
    "shards": set(),
    "cluster": {"idc", "shards"},
    "tune": {"idc", "shards", "cluster"},
    "bench": {"idc", "shards", "cluster", "tune"},
}
MOST_LINES = 350
MOST_FILES = 12


def modules() -> dict[str, Path]:
    """The modules of the rooms by dotted name; a package stands for its `__init__`."""
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules of the rooms that a file imports, those inside functions and type checks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports name the whole path"
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found & MODULES.keys()


IMPORTS = {module: imports(path) - {module} for module, path in MODULES.items()}


def folder_of(module: str) -> str:
    """What a module counts as among folders: its folder; a file at the top of a room stands for itself."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return package if "." in package else module


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The first circle of a graph; empty where it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle_of_modules():
    assert not circle(IMPORTS)


def test_no_circle_of_folders():
    graph: dict[str, set[str]] = {}
    for module, imported in IMPORTS.items():
        graph.setdefault(folder_of(module), set()).update(map(folder_of, imported))
    for folder, below in graph.items():
        below.discard(folder)
    assert not circle(graph)


def test_circles_are_found():
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]}) and not circle({"a": ["b", "c"], "b": ["c"]})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_is_below_it(room):
    for module, imported in IMPORTS.items():
        if module.split(".")[0] == room:
            rooms = {name.split(".")[0] for name in imported} - {room}
            assert rooms <= BELOW[room], f"{module} imports {sorted(rooms - BELOW[room])}"


def test_folders_and_files_are_small():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in tracked.stdout.split()]
    long = {
        str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().split("\n")) - 1) > MOST_LINES
    }
    assert not long
    folders: dict[Path, int] = {}
    for path in files:
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    assert not {str(folder.relative_to(ROOT)): n for folder, n in folders.items() if n > MOST_FILES}


def test_packages_say_what_lives_there():
    silent = [
        m
        for m, path in MODULES.items()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_what_a_job_imports_is_uploaded():
    """`ray job submit --working-dir .` leaves out what .rayignore and .gitignore name: never a module of ours."""
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files  # the filter that Ray uploads by

    ignored = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    assert len(ignored) == 2 and ignored[1](ROOT / "docs" / "data.md")
    lost = [m for m, path in MODULES.items() if not m.startswith("bench") and any(skip(path) for skip in ignored)]
    assert not lost


def test_files_of_tests_have_names_of_their_own() -> None:
    """They are in no package, so pytest takes the second of a name for the first."""
    names = collections.Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
