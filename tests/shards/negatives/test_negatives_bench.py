"""The command that judges negatives by the exact truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "bench"))

from negatives import pair_is_true, photo_is_true  # noqa: E402

from shards.sources.blocks import BlocksSource  # noqa: E402


def test_references_are_judged_true_and_turned_directions_false():
    source = BlocksSource(scenes=(30, 0, 0), class_photos=0, relational=0.5)
    turned = 0
    for record in source.records(1):
        judge = pair_is_true if record.kind == "pair" else photo_is_true
        for caption in record.captions:
            assert judge(caption, record, source), caption
            if record.kind == "pair" and " left of the " in caption and " both " not in caption:
                assert not judge(caption.replace(" left of the ", " right of the "), record, source), caption
                turned += 1
    assert turned > 5


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "bench" / "negatives.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_under_one_percent_are_true():
    done = run("false", "--scenes", "40")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| pair | ") == 8 and done.stdout.count("| photo | ") == 8


@pytest.mark.slow
def test_what_the_text_gives_away_and_what_free_text_lets_in_are_told():
    done = run("text", "--scenes", "100")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| pair", "| photo"))]
    assert len(rows) == 8 and {row[1] for row in rows} == {"the three", "matched"}
    assert all(float(row[3]) in (50.0, pytest.approx(14.3, abs=1)) for row in rows)
    free = run("free", "--scenes", "30")
    assert free.returncode == 0, free.stderr
    read = {row[0]: row[2] for line in free.stdout.splitlines()[2:] if (row := line.strip("| ").split(" | "))}
    assert list(read) == ["retrieve", "replace", "confuse", "matched"] and read["matched"] != "0"


def test_a_wrong_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    for name in ("x.json", "none.json"):
        done = run("show", str(tmp_path / name))
        assert done.returncode == 2 and name in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_pages_show_what_the_command_prints(shared_data):
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("experiments", "negatives")}
    done = run("show", str(shared_data / "text" / "birds_to_words_test_text.json"))
    page = pages["experiments"]
    parts = re.split(r"^### (\w+)$", done.stdout, flags=re.M)[1:]
    shown = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    folded = [f"<details><summary>{kind}</summary>\n\n{text}\n\n</details>\n" for kind, text in shown.items()]
    assert page.endswith("\n".join(folded)), "run bench/negatives.py show again and put its output into the page"
    assert page.count("<br>*") == 60
    examples = dict(re.findall(r"^- `(\w+)`: (.+<br>.+)$", pages["negatives"], re.M))
    for kind, text in shown.items():
        assert f". {examples[kind]}\n" in f"{text}\n"
