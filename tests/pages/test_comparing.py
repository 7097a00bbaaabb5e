"""docs/comparing.md: its example is run as it stands, and its table has every protocol and every extra."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from pages.doc_pages import blocks, commands, read
from testing.here import run_here
from testing.suite.no_java import hide_java

import cluster.score
import shards.pack
from cluster.evaluation.protocol import NAMED
from idc.metrics.extras import EXTRAS

PAGE = "docs/comparing.md"


@pytest.mark.slow
def test_the_example_compares_two_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    hide_java(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CLEVR").symlink_to(shared_data / "clevr_change_sample")
    (method,) = (block.text for block in blocks(PAGE) if block.language == "python")
    (tmp_path / "methods.py").write_text(method)
    pack, write, score = commands(PAGE)[-3:]

    packed = run_here(shards.pack.main, *shlex.split(pack)[3:], "--workers", 1)
    assert packed.returncode == 0, packed.stderr
    monkeypatch.setattr("sys.argv", shlex.split(write)[1:])
    runpy.run_path("methods.py", run_name="__main__")
    done = run_here(cluster.score.main, *shlex.split(score)[3:])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.clevr_change.json").read_text())
    assert found["n"] == {"total": 60, "changed": 30, "unchanged": 30, "by_type": {"color": 30}}
    right = found["against"]["accuracy"]
    assert (right["changed"]["difference"], right["changed"]["better"]) == (100, 30), "the second finds no change"
    assert (right["unchanged"]["difference"], right["unchanged"]["equal"]) == (0, 30)
    cider = found["against"]["sets"]["changed"]["CIDEr"]
    assert cider["difference"] > 0 and cider["p"] < 0.05 < cider["interval"][0]
    assert re.search(r"CIDEr, changed +30 +\+\d", done.stdout)


def test_its_tables_have_every_protocol_and_extra() -> None:
    cells = [line.split("|")[1:] for line in read(PAGE).splitlines() if line.startswith("| `")]
    tokenizers = {"ptb": "PTB", "split": "white space"}
    for name, row in NAMED.items():
        (line,) = [one for one in cells if one[0].strip(" ").startswith(f"`{name}`") and len(one) > 4]
        assert line[1].strip() == tokenizers[row.tokenizer]
        assert ("S*m" in line[3]) == ("S*m" in row.metrics)
    assert {name for name in EXTRAS} <= {line[0].strip(" `") for line in cells}
