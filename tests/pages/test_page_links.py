"""What pages point to is there: links and their anchors, files and folders, modules, options, pages named in code."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from pages.doc_pages import CURRENT, PAGES, ROOT, prose, read

from cluster.config.options import options
from cluster.recipes.registry import RECIPES

LINK = re.compile(r"\]\(([^)\s]+)\)")
TOP = "idc|shards|cluster|tune|slurm|tests|bench|docs"
PATH = re.compile(rf"(?<![\w./-])((?:{TOP})/[\w./%-]*[\w/])")
MODULE = re.compile(r"(?<![\w./-])((?:idc|shards|cluster|tune|bench)(?:\.[A-Za-z_]\w*)+)")
MADE = re.compile(r"slurm/site\.env|bench/results/gpu|.*\bNAME\b.*|shards/sources/twins\.py")  # by who reads the page


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)}


def broken_links(page: str, text: str) -> list[str]:
    """The links of a page's text that lead nowhere; those to other sites are not looked at."""
    broken = []
    for link in LINK.findall(text):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def missing_paths(text: str) -> list[str]:
    """The files and folders of the tree that a text names and that are not there."""
    named = {path.rstrip("/.") for path in PATH.findall(text)}
    return sorted(path for path in named if not (ROOT / path).exists() and not MADE.fullmatch(path))


def is_known(name: str) -> bool:
    """Whether a dotted name is a module, something in a module, or an option of a run."""
    *parents, last = name.split(".")
    for depth in range(len(parents), 0, -1):
        module = ".".join(name.split(".")[:depth])
        try:
            found = importlib.util.find_spec(f"{module}.{last}" if depth == len(parents) else module)
        except ModuleNotFoundError:
            continue
        if depth == len(parents) and found is not None:
            return True
        try:
            value = importlib.import_module(module)
            for part in name.split(".")[depth:]:
                value = getattr(value, part)
        except (ModuleNotFoundError, AttributeError):
            continue
        return True
    return name in {option.name for option in options(RECIPES["blocks"]())}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken_links(page, read(page)) == []


@pytest.mark.parametrize("page", CURRENT)
def test_files_and_folders_are_there(page: str) -> None:
    assert missing_paths(read(page)) == []


@pytest.mark.parametrize("figure", sorted(path.name for path in (ROOT / "docs" / "img").glob("*.svg")))
def test_folders_that_figures_name_are_there(figure: str) -> None:
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", (ROOT / "docs" / "img" / figure).read_text(encoding="utf-8"))
    assert labels and missing_paths(" ".join(labels)) == []


@pytest.mark.parametrize("page", CURRENT)
def test_modules_and_names_in_them_are_there(page: str) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    names = {name for span in spans for name in MODULE.findall(span)}
    assert sorted(name for name in names if not is_known(name)) == []


def test_what_is_not_there_is_found() -> None:
    text = "[a](data.md) [b](nowhere.md) [c](data.md#pack) [d](data.md#nowhere) `shards/pack.py`, idc/no_such_file.py"
    assert broken_links("docs/README.md", text) == ["nowhere.md", "data.md#nowhere"]
    assert missing_paths(text) == ["idc/no_such_file.py"]
    assert is_known("shards.pack") and is_known("cluster.timeout_s") and is_known("shards.order.rank_positions")
    assert not is_known("shards.no_such_module") and not is_known("cluster.no_such_option")


def test_pages_that_files_name_are_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    missing = []
    for name in listed.stdout.splitlines():
        if name in PAGES or not name.endswith((".py", ".sh", ".yaml", ".toml", ".example", "Makefile")):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"docs/\w+\.(?:md|yaml)", text))
        missing += [f"{name}: {page}" for page in named if not (ROOT / page).exists()]
    assert missing == []


def test_the_index_names_every_page() -> None:
    named = {link for link in LINK.findall(read("docs/README.md")) if "/" not in link}
    assert named == {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"}
