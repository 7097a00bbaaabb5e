"""Container files: what they name is there, and all install alike. Building them needs a network and a builder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".devcontainer"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = {"pyproject.toml", "README.md", "LICENSE", "idc", "shards", "cluster", "tune"}
INSTALLS = "pip install --no-cache-dir '.[train]'"


def fits(image: str) -> bool:
    """Whether the Python of a base image is one that the project takes."""
    return re.search(r"python:([\d.]+)", image)[1] + ".0" in SpecifierSet(PROJECT["requires-python"])


def shell_is_whole(script: str) -> bool:
    return subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0


def test_the_docker_image_has_the_code_and_what_training_needs() -> None:
    lines = [line.split(maxsplit=1) for line in (FOLDER / "Dockerfile").read_text().splitlines() if line[:1].isalpha()]
    assert {word for word, _ in lines} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    assert fits(lines[0][1])
    copied = {name for word, rest in lines if word == "COPY" for name in rest.split()[:-1]}
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == SHIPPED == {line[1:] for line in ignored if line.startswith("!")}
    packages = {name.rstrip("*") for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
                ["packages"]["find"]["include"]}  # fmt: skip
    assert packages < copied and all((ROOT / name).exists() for name in copied), "all that pip installs"
    runs = [rest for word, rest in lines if word == "RUN"]
    assert INSTALLS in runs and "train" in PROJECT["optional-dependencies"] and all(map(shell_is_whole, runs))
    command = json.loads(next(rest for word, rest in lines if word == "CMD"))
    assert command[0] in PROJECT["scripts"]


def test_the_apptainer_definition_does_the_same() -> None:
    head, *sections = re.split(r"^%", (FOLDER / "apptainer.def").read_text(), flags=re.M)
    parts = dict(section.split("\n", 1) for section in sections)
    assert fits(head) and parts.keys() == {"files", "post", "runscript", "test"}
    moved = dict(line.split() for line in parts["files"].splitlines() if line.strip())
    assert moved == {name: f"/opt/idc/{name}" for name in SHIPPED}
    assert INSTALLS in map(str.strip, parts["post"].splitlines())
    assert all(shell_is_whole(parts[name]) for name in ("post", "runscript", "test"))
    assert parts["test"].split()[0] in PROJECT["scripts"]


def test_the_devcontainer_is_made_by_make() -> None:
    found = json.loads((FOLDER / "devcontainer.json").read_text())
    tool, target = shlex.split(found["postCreateCommand"])
    assert tool == "make" and f"\n{target}:" in (ROOT / "Makefile").read_text() and fits(found["image"])
