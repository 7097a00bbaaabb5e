"""python -m shards.order: one text for any ranks, workers and start, made by reading; and how well folders shuffle."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from testing.tiny_source import TinySource

from shards.errors import DataError
from shards.order import command as order_command
from shards.order import quality
from shards.order.command import main
from shards.pack import pack
from shards.reading.reader import Folder

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "order.md").read_text()
SCENES = 3  # of the second folder: two pairs each


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second, smaller folder."""
    folder = tmp_path_factory.mktemp("packed") / "other"
    pack(TinySource(scenes=SCENES), folder)
    return folder


@pytest.fixture
def lines(packed, other, capsys):
    """Runs the command on both folders; its lines."""

    def run(*arguments: object, folders=(packed, other)) -> list[str]:
        assert main([*map(str, folders), *map(str, arguments)]) == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize(("world", "workers"), [(1, 5), (2, 1), (3, 3), (5, 2), (12, 7), (16, 2)])
@pytest.mark.parametrize("mix", ["tiny=2,other=1", None])
def test_the_text_is_the_same_for_any_ranks_and_workers(lines, world, workers, mix):
    options = ["--global-batch", 12, "--steps", 6, *(["--mix", mix] if mix else [])]
    alone = lines(*options)
    assert len(alone) == 6 and {len(line.split("\t")) for line in alone} == {12}
    assert lines(*options, "--world", world, "--workers", workers) == alone


@pytest.mark.parametrize("start", [0, 1, 5, 9, 10])
def test_a_start_cuts_the_first_lines(lines, start):
    options = ["--global-batch", 8, "--steps", 10, "--mix", "other=0.25,tiny=1", "--seed", 3]
    assert lines(*options, "--start", start, "--world", 2, "--workers", 3) == lines(*options)[start:]


def test_the_ids_are_those_of_the_folders_and_come_in_their_shares(lines, packed, other):
    text = lines("--global-batch", 9, "--steps", 10, "--mix", "tiny=2,other=1", "--workers", 2)
    batches = [line.split("\t") for line in text]
    for batch in batches:
        assert Counter(name.partition("/")[0] for name in batch) == {"tiny": 6, "other": 3}
    for folder, name in ((packed, "tiny"), (other, "other")):
        stream = Folder.open(folder).stream("pair", "train")
        ids = sorted(f"{name}/{stream.metadata(i)['id']}" for i in range(len(stream)))
        come = [shown for batch in batches for shown in batch if shown.startswith(f"{name}/")]
        whole = len(come) // len(ids)
        assert whole >= 3
        for epoch in range(whole):
            assert sorted(come[epoch * len(ids) : (epoch + 1) * len(ids)]) == ids


def test_it_is_what_ranks_and_workers_read_that_is_printed(lines, monkeypatch):
    options = ["--global-batch", 8, "--steps", 2, "--world", 2, "--workers", 2]
    right = lines(*options)
    for name in ("rank_positions", "worker_positions"):
        real = getattr(order_command, name)
        with monkeypatch.context() as patch:
            patch.setattr(order_command, name, lambda *arguments, real=real: real(*arguments)[::-1])
            assert lines(*options) != right


def test_one_folder_has_plain_ids(packed):
    command = [sys.executable, "-m", "shards.order", str(packed), "--global-batch", "4", "--steps", "2"]
    command += ["--kind", "photo", "--split", "val"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    batches = [line.split("\t") for line in done.stdout.splitlines()]
    assert [sorted(batch) for batch in batches] == [["val-000/red"] * 2 + ["val-001/blue"] * 2] * 2
    done = subprocess.run([*command, "--world", "0"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "3"], "--global-batch is missing"),
        (["--global-batch", "4"], "--steps is missing"),
        (["--global-batch", "4", "--steps", "1", "--workers", "0"], "--workers is 0 and must be 1 or more"),
        (["--global-batch", "4", "--steps", "1", "--start", "2"], "--start 2 lies behind --steps 1"),
        (["--global-batch", "4", "--steps", "9" * 20], "at most 2^62"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny"], "NAME=WEIGHT"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny=1"], "no weight for other"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny=1,tiny=2"], "names tiny twice"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny=1,othr=1"], "did you mean other"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny=1,other=none"], "other=none: the weight 'none'"),
        (["--global-batch", "4", "--steps", "1", "--mix", "tiny=1,other=0.00001"], "round them"),
        (["--global-batch", "4", "--steps", "1", "--kind", "class", "--split", "test"], "has no class samples in test"),
        (["--quality"], "one folder at a time"),
        (["--quality", "--steps", "3"], "--steps has no meaning with --quality"),
        (["--globalbatch", "4"], "did you mean --global-batch"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_in_one_line(packed, other, capsys, arguments, words):
    with pytest.raises(DataError) as caught:
        main([str(packed), str(other), *arguments])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_folders_of_one_name_are_refused_and_a_link_helps(lines, packed, tmp_path):
    (tmp_path / "tiny").symlink_to(packed)
    (tmp_path / "twin").symlink_to(packed)
    with pytest.raises(DataError, match="two folders are called tiny"):
        lines("--global-batch", 4, "--steps", 1, folders=(packed, tmp_path / "tiny"))
    (batch,) = lines("--global-batch", 4, "--steps", 1, folders=(packed, tmp_path / "twin/"))
    assert [name.partition("/")[0] for name in batch.split("\t")] == ["tiny", "twin"] * 2


def test_measures_of_known_orders():
    as_it_lies, turned = np.arange(100), np.arange(100)[::-1]
    assert quality.displacement(as_it_lies) == 0 and quality.displacement(turned) == 0.5
    assert quality.rank_correlation(as_it_lies) == pytest.approx(1)
    assert quality.rank_correlation(turned) == pytest.approx(-1)
    # Batches of four: all of one shard; two and two (one pair in three); what is left over does not count.
    assert quality.same_shard_share(np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3]), 4) == pytest.approx((1 + 1 / 3) / 2)


def test_an_epoch_of_the_buffer_holds_every_sample_once_and_hardly_mixes_shards():
    samples = [500] * 40
    order = quality.buffered(samples, 1)
    assert np.array_equal(np.sort(order), np.arange(20_000))
    assert not np.array_equal(order, quality.buffered(samples, 2))
    shard = order // 500
    assert quality.same_shard_share(shard, 64) > 5 / 40


def test_the_table_puts_this_order_beside_a_full_permutation(packed, capsys):
    assert main([str(packed), "--quality", "--global-batch", "10"]) == 0
    about, _, *rows = capsys.readouterr().out.splitlines()
    assert about == "20 samples in 3 shards, batches of 10, mean of 5 epochs"
    assert [row[:20].strip() for row in rows] == ["this order", "buffer of 1,000", "full permutation"]
    assert main([str(packed), "--quality"]) == 0  # fewer samples than the default batch has
    assert capsys.readouterr().out.startswith("20 samples in 3 shards, batches of 20,")
    table = quality.quality_table([100] * 100, 0, 50).splitlines()[2:]
    ours, buffer, full = (list(map(float, row[20:].split())) for row in table)
    assert ours[0] == pytest.approx(full[0], abs=0.002) and ours[0] < buffer[0] / 3
    assert ours[1] == pytest.approx(1 / 3, abs=0.01) and ours[2] < 0.03


def test_the_page_s_commands_and_example_run(packed, other, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "blocks").symlink_to(packed)
    (tmp_path / "data" / "clevr_change").symlink_to(other)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python -m shards\.order (.*)$", PAGE, re.M)
    printed = []
    for command in commands:
        assert main(shlex.split(command)) == 0
        printed.append(len(capsys.readouterr().out.splitlines()))
    assert printed == [3, 3, 3, 5]
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict = {}
    exec(code, names)
    assert len(names["ids"]) == 8 and set(names["sources"].tolist()) == {0, 1}
