"""The wheel of this checkout alone: what is in it, and what it does where only its base dependencies are installed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from cluster.prepare import prepare_training, with_sizes
from cluster.recipes.registry import RECIPES
from idc.captioner import Captioner
from idc.captioning import model_folder
from idc.model.build import build
from shards.reading.reader import Folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("idc", "shards", "cluster", "tune")
ENDINGS = (".py", ".html", ".css", ".js")
TIME_LIMIT_S = 300


def run(*command: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command that sees nothing of this checkout, and ends with this exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S
    )
    assert ended.returncode == code, f"{ended.stdout}\n{ended.stderr}"
    return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: a build leaves folders beside the sources, and takes along what an earlier one has left."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    isolation = ["--no-build-isolation"] if find_spec("setuptools") else []
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "-w", out, source, cwd=out)
    (made,) = out.glob("*.whl")
    return made


def base_distributions(wheel: Path) -> dict[str, metadata.Distribution]:
    """What the wheel needs without extras, and what that needs in turn, as it is installed beside this test."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = metadata.PathDistribution(zipfile.Path(archive, name.removesuffix("METADATA"))).metadata
    todo = [(requirement, "") for requirement in message.get_all("Requires-Dist")]
    found: dict[str, metadata.Distribution] = {}
    seen = set()
    while todo:
        text, extra = todo.pop()
        requirement = Requirement(text)
        if (text, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((text, extra))
        distribution = metadata.distribution(requirement.name)
        found[canonicalize_name(requirement.name)] = distribution
        todo += [(other, of) for other in distribution.requires or () for of in ("", *requirement.extras)]
    return found


def show(distribution: metadata.Distribution, folder: Path) -> None:
    """Makes a distribution importable from `folder`, by links."""
    for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
        path = Path(str(distribution.locate_file(top)))
        if path.name == "__pycache__" or path.suffix == ".pth":
            continue
        if path.is_dir() and path.suffix != ".dist-info" and not (path / "__init__.py").exists():
            (folder / top).mkdir(exist_ok=True)  # other distributions may have their files in there too
            inner = {file.parts[1] for file in distribution.files or () if file.parts[0] == top}
            paths = [(path / name, folder / top / name) for name in inner]
        else:
            paths = [(path, folder / top)]
        for source, link in paths:
            if source.exists() and not link.exists():
                link.symlink_to(source)


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory) -> Path:
    """The scripts of an environment that has the wheel and its base dependencies, and nothing else."""
    environment, visible = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("visible")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=visible)
    python = environment / "bin" / "python"
    install = ("pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", *install, wheel, cwd=visible)
    for distribution in base_distributions(wheel).values():
        show(distribution, visible)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=visible).stdout.strip()
    (Path(site) / "base.pth").write_text(f"{visible}\n")
    return python.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_data) -> Path:
    """A model folder of the recipe `tiny`: its data, features and sizes, and weights far from their start."""
    root = tmp_path_factory.mktemp("tiny")
    shutil.copytree(tiny_data, root / "data")
    config = dataclasses.replace(RECIPES["tiny"](), root=str(root))
    training = prepare_training(config, root)
    shards, features = (Folder.open(part.path) for part in (training.data.shards, training.data.features))
    torch.manual_seed(0)
    made = build(with_sizes(config, training).model)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn_like(weight) * 2 * weight.shape[-1] ** -0.5)
    tokenizer = shards.path / shards.manifest["tokenizer"]["file"]
    backbone = features.manifest["features"]
    return model_folder.save(root / "model", made.config, made.state_dict(), tokenizer, backbone)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    for name, colour in (("before.png", (200, 30, 30)), ("after.png", (20, 60, 220))):
        image = Image.new("RGB", (64, 48), (120, 120, 120))
        image.paste(colour, (20, 10, 40, 30))
        image.save(folder / name)
    return folder / "before.png", folder / "after.png"


def test_the_wheel_has_every_module_and_says_that_it_is_typed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in ENDINGS]
    assert files and {path.relative_to(ROOT).as_posix() for path in files} <= inside
    assert {f"{name}/py.typed" for name in PACKAGES} <= inside
    assert {name.split("/")[0] for name in inside if not name.split("/")[0].endswith(".dist-info")} == set(PACKAGES)


def test_a_sentence_needs_the_base_installation_alone(scripts, model, images, tmp_path):
    where = Path(run(scripts / "python", "-c", "import idc; print(idc.__file__)", cwd=tmp_path).stdout.strip())
    assert where.is_relative_to(scripts.parent), "the installed package, not this checkout's"
    assert (where.parent / "py.typed").is_file()
    sentence = Captioner.load(model).caption(*images).text
    assert sentence
    assert run(scripts / "idc-caption", *images, "--checkpoint", model, cwd=tmp_path).stdout == f"{sentence}\n"


def test_the_page_says_what_it_needs(scripts, tmp_path):
    ended = run(scripts / "idc-demo", "--checkpoint", "runs/blocks", cwd=tmp_path, code=2)
    assert ended.stderr == "idc.demo needs aiohttp: pip install 'image-difference-captioning[demo]'\n"


@pytest.mark.parametrize(
    "command", ["idc-train tiny", "idc-sweep tiny", "idc-pack blocks --out data", "idc-features data --out f"]
)
def test_what_needs_the_extra_says_so_in_one_line(scripts, tmp_path, command):
    name, *arguments = command.split()
    ended = run(scripts / name, *arguments, cwd=tmp_path, code=2)
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{name} needs ") and line.endswith("pip install 'image-difference-captioning[train]'")
    assert ended.stdout == "" and not any(tmp_path.iterdir())
    missing = line.split()[2].rstrip(",").split(".")[0]
    assert run(scripts / "python", "-c", f"import {missing}", cwd=tmp_path, code=1).stderr.count(missing)
