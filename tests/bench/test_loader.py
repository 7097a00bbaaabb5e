"""bench/loader.py: the command makes its data, reads the same pairs with every loader and prints the table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = Path(__file__).resolve().parents[2] / "bench" / "loader.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("measured")
    return folder, run(folder, "--pairs", "16", "--repeats", "3")


def test_the_table_has_every_loader(measured):
    _, result = measured
    assert result.returncode in (0, 1), result.stderr  # a few pairs are too few to judge the speed
    assert re.match(r"15 pairs of 208x156, 3 repeats; simplejpeg \d", result.stdout)  # one scene has three pairs
    numbers = r" +[\d,]+ +(\d\.\d{3}) \((\d\.\d{3}), (\d\.\d{3})\) +\d\.\d\d +[\d,]+$"
    names = ["bare loop", "ours", "ours, 2 threads", "webdataset", "webdataset, its own decoder", "plain files"]
    if find_spec("streaming"):
        names.append("mosaicml-streaming")
    else:
        assert re.search(r"^mosaicml-streaming .*pip install -e '\.\[bench\]'$", result.stdout, re.M)
    for name in names:
        (found,) = re.findall(f"^{name}{numbers}", result.stdout, re.M)
        median, least, most = map(float, found)
        assert 0 < least <= median <= most
    missed = re.findall(r"^ours is [\d.]+ of (.*); the bar is ([\d.]+): MISSED$", result.stdout, re.M)
    assert result.returncode == bool(missed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder; make it with python -m shards.pack"),
        (["--repeats", "0"], "--repeats is 0: it must be at least 1"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, arguments, words):
    result = run(tmp_path, *arguments)
    assert result.returncode == 2 and words in result.stderr and result.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_the_packed_data_is_kept_and_a_damaged_tar_ends_it(measured):
    folder, _ = measured
    (tar,) = (folder / "data" / "loader-16").glob("pairs-train-*.tar")
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    result = run(folder, "--pairs", "16")
    assert result.returncode == 2 and "is damaged (crc32c differs)" in result.stderr


def test_the_page_s_commands_lack_nothing_but_their_folder(tmp_path):
    page = (COMMAND.parents[1] / "docs" / "storage.md").read_text()
    commands = re.findall(r"^python bench/loader\.py ?(.*)$", page, re.M)
    assert commands == ["", "data/blocks"]  # the first is what the other tests run, on fewer pairs
    result = run(tmp_path, commands[1])
    assert result.returncode == 2 and result.stderr.startswith("data/blocks: no such folder")
