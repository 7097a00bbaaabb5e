"""The worked example of CONTRIBUTING.md: its blocks, put where the page says, make a source that packs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages.doc_pages import ROOT, read
from PIL import Image

from shards.reading.reader import Folder

PAGE = "CONTRIBUTING.md"
LIMIT_S = 120
EXAMPLE = read(PAGE).partition("### Example: a source")[2].partition("\n## ")[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages with the example in it."""
    found = re.search(
        r"`(shards/sources/\w+\.py)`:\n\n```python\n(.*?)```.*?`SOURCES`:\n\n```python\n(.*?)```", EXAMPLE, re.S
    )
    assert found, "the page names a file, shows it, and shows its line in SOURCES"
    file, module, line = found.groups()
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "shards", tree / "shards", ignore=shutil.ignore_patterns("__pycache__"))
    assert not (tree / file).exists() and line.count("\n") == 1, "one new file, one line elsewhere"
    (tree / file).write_text(module)
    registry = tree / "shards" / "sources" / "__init__.py"
    before, opening, after = registry.read_text().partition("SOURCES: dict[str, Adapter] = {\n")
    assert opening
    registry.write_text(before + opening + line + after)
    return tree


@pytest.mark.slow
def test_the_example_packs(tree: Path) -> None:
    root = tree / "TWINS"
    rows = [("train", "1.png", "the cup has gone"), ("train", "2.png", "a cup is there"), ("test", "3.png", "no cup")]
    for side in ("before", "after"):
        (root / side).mkdir(parents=True)
        for number, (_, name, _) in enumerate(rows):
            Image.new("RGB", (24, 16), (number * 40, 90, 200 if side == "after" else 0)).save(root / side / name)
    lines = ["\t".join(row) for row in rows] + ["a line without tabs", "holdout\t1.png\tno such split"]
    (root / "captions.tsv").write_text("\n".join(lines) + "\n")

    (command,) = re.findall(r"```sh\n(.*)\n```", EXAMPLE)
    out = tree / shlex.split(command)[-1]
    done = run([*shlex.split(command)[1:], "--workers", "1"], tree)
    assert done.returncode == 0, done.stderr
    assert "train: 2 pair\nval: nothing\ntest: 1 pair" in done.stdout
    assert "left out: 2 not split, name and sentence" in done.stdout
    record, _ = Folder.open(out).stream("pair", "train").sample(0)
    assert (record["source"], record["id"], record["captions"]) == ("twins", "1.png", ["the cup has gone"])
    assert run(["-m", "shards.verify", str(out)], tree).returncode == 0


def test_a_folder_without_its_table_is_refused_in_one_line(tree: Path) -> None:
    (tree / "TWINS").mkdir()
    done = run(["-m", "shards.pack", "twins", "--root", "TWINS", "--out", "data/twins"], tree)
    assert done.returncode == 2 and "captions.tsv" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def run(arguments: list[str], tree: Path) -> subprocess.CompletedProcess:
    """Python in the tree, with the tree's packages."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
