"""Python and the packages that are installed, against the ranges that pyproject.toml names."""

from __future__ import annotations

import importlib.metadata
import platform
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster import CODE
from cluster.checks.finding import Finding, miss, ok

DISTRIBUTION = "image-difference-captioning"
SHOWN = ("torch", "deepspeed", "ray", "numpy")


def look(settings: Mapping[str, Any]) -> list[Finding]:
    """Versions of what training needs; facts: {"versions": {name: version}}."""
    python, requirements = needed()
    versions = {"python": platform.python_version()}
    bad = []
    if not python.contains(versions["python"], prereleases=True):
        bad.append(
            miss("packages", f"Python {versions['python']}, and {python} is needed", "make env PYTHON=python3.11")
        )
    for one in requirements:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            bad.append(miss("packages", f"{one.name} is not installed", f"pip install '{one}'"))
            continue
        versions[one.name] = found
        if not one.specifier.contains(found, prereleases=True):
            bad.append(miss("packages", f"{one.name} {found}, and {one.specifier} is needed", f"pip install '{one}'"))
    if bad:
        return bad
    shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions)
    said = f"Python {versions['python']}, {len(requirements)} packages in their ranges ({shown})"
    return [ok("packages", said, versions=versions)]


def needed() -> tuple[SpecifierSet, list[Requirement]]:
    """The range of Python versions, and what a run needs: of the checkout, else of the installed package."""
    path = CODE / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text())["project"]
        lines = [*project["dependencies"], *project["optional-dependencies"]["train"]]
        return SpecifierSet(project["requires-python"]), [Requirement(text) for text in lines]
    found = importlib.metadata.metadata(DISTRIBUTION)
    return SpecifierSet(found["Requires-Python"]), list(_of_training(found.get_all("Requires-Dist") or []))


def _of_training(lines: Iterable[str]) -> Iterable[Requirement]:
    for one in map(Requirement, lines):
        if one.marker is None or one.marker.evaluate({"extra": "train"}):
            yield Requirement(str(one).partition(";")[0])
