"""Disks that fail while packing: tried again, then said; never taken for a damaged image, never half a folder."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testing.killing import contents, in_fork
from testing.picture_source import picture

from shards import pack as packing
from shards.errors import DataError, Unreachable
from shards.format import retries
from shards.pack import pack
from shards.reading.reader import Folder
from shards.sources import make_source

PAIRS = 12


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with a table of PAIRS pairs, two splits, and their images."""
    root = tmp_path / "root"
    root.mkdir()
    lines = []
    for number in range(PAIRS):
        for side in ("before", "after"):
            picture(2 * number + (side == "after"), 24, 16).save(root / f"{number}-{side}.png")
        split = "train" if number < PAIRS - 2 else "test"
        captions = [f"the {color} cube moved" for color in ("red", "blue")]
        lines.append({"before": f"{number}-before.png", "after": f"{number}-after.png", "captions": captions,
                      "split": split})  # fmt: skip
    (root / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A disk whose files fail to open when `fails`(name) says so; an attempt follows the other at once."""

    class Disk:
        fails: Callable[[str], bool] = staticmethod(lambda name: False)
        failures = 0

    disk, real = Disk(), builtins.open

    def opened(file: Any, *arguments: Any, **options: Any) -> Any:
        if str(file).endswith(".png") and disk.fails(str(file)):
            disk.failures += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
        return real(file, *arguments, **options)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", opened)
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))
    yield disk


def of(root: Path) -> Any:
    return make_source("pairs", root)


def test_every_third_read_fails_and_nothing_is_lost(pairs: Path, tmp_path: Path, disk: Any) -> None:
    undisturbed = pack(of(pairs), tmp_path / "undisturbed")
    reads = iter(range(10**6))
    disk.fails = lambda name: next(reads) % 3 == 2
    disturbed = pack(of(pairs), tmp_path / "disturbed")
    assert disk.failures > PAIRS and disturbed["dropped"] == {} == undisturbed["dropped"]
    assert contents(tmp_path / "disturbed") == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("at", ["reading records", "packing"])
def test_a_read_that_keeps_failing_stops_the_packing_with_its_name(
    pairs: Path, tmp_path: Path, disk: Any, at: str
) -> None:
    source, reads = of(pairs), iter(range(10**6))
    disk.fails = lambda name: name.endswith("7-after.png") and next(reads) >= (at == "packing")
    with pytest.raises(Unreachable, match=r"7-after\.png cannot be read \(Input/output error\), 3 times") as caught:
        pack(source, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "manifest.json").exists()
    disk.fails = lambda name: False
    assert pack(of(pairs), tmp_path / "out")["splits"]["train"]["pair"] == PAIRS - 2


def test_what_is_damaged_is_listed_with_its_reason_and_too_much_of_it_stops(pairs: Path, tmp_path: Path) -> None:
    (pairs / "3-before.png").write_bytes((pairs / "3-before.png").read_bytes()[:60])
    (pairs / "11-after.png").write_bytes((pairs / "11-after.png").read_bytes()[:40])
    source = of(pairs)
    with pytest.raises(DataError, match=r"2 of 12 samples .*, and --max-dropped 0.1 allows 1 \(.*3-before"):
        pack(source, tmp_path / "out", max_dropped=0.1)
    command = ["pairs", "--root", str(pairs), "--out", str(tmp_path / "out"), "--workers", "1", "--max-dropped"]
    with pytest.raises(DataError, match="--max-dropped is 2: it is a share"):
        packing.main([*command, "2"])
    assert packing.main([*command, "0.2"]) == 0
    rows = dict(line.split("\t") for line in (tmp_path / "out" / "dropped.tsv").read_text().splitlines())
    assert len(rows) == 2 and str(pairs) not in str(rows)
    (reason,) = [reason for reason in rows.values() if "3-before.png" in reason]
    assert reason.startswith("an image is missing or damaged (3-before.png: damaged PNG (")
    os.unlink(pairs / "5-before.png")
    (pairs / "6-before.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 12 samples .*1 an empty file.*the first, pairs.jsonl line"):
        pack(of(pairs), tmp_path / "other", max_dropped=0.1)
    assert not (tmp_path / "other").exists()


def test_an_image_that_was_replaced_meanwhile_is_noticed(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A packing is cut off behind its first tar; then an image of that tar gets other pixels under its old name."""
    from shards.packing.state import Place

    publish = Place.publish
    monkeypatch.setattr(Place, "publish", lambda *_: os._exit(3))
    assert not in_fork(lambda: pack(of(pairs), tmp_path / "out"), None)
    monkeypatch.setattr(Place, "publish", publish)
    assert not (tmp_path / "out" / "manifest.json").exists() and (tmp_path / "out" / ".packing").is_dir()
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    picture(99, 24, 16).save(pairs / "0-before.png")
    pack(of(pairs), tmp_path / "out")
    assert "pairs-train-000000.tar is packed again: images of it were replaced since" in capsys.readouterr().err
    again = {name for name, time in times.items() if (tmp_path / "out" / name).stat().st_mtime_ns != time}
    assert again == {"pairs-train-000000.tar"}
    pack(of(pairs), tmp_path / "anew")
    assert contents(tmp_path / "out") == contents(tmp_path / "anew")


def readable(folder: Path, but: str) -> int:
    """How many samples of a folder can be read; those of the tar `but` need not be."""
    opened, read = Folder.open(folder), 0
    for shard in opened.manifest["shards"]:
        if shard["name"] != but:
            stream = opened.stream(shard["kind"], shard["split"])
            read += sum(bool(stream.sample(i)) for i in range(len(stream)))
    return read


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", "interrupted"])
def test_a_repair_leaves_the_folder_readable_at_every_moment(pairs: Path, tmp_path: Path, end: str) -> None:
    """Ended before and after each file that it puts in place, it is readable but for the tar that was damaged."""
    out, source = tmp_path / "out", of(pairs)
    pack(source, out)
    whole, damaged = contents(out), "pairs-test-000000.tar"
    tar, moves = bytearray(whole[damaged]), iter(range(100))
    tar[600] ^= 1

    def repair(moment: int) -> None:
        real, calls = os.replace, iter(range(1000))

        def replace(start: Any, target: Any) -> None:
            number = next(calls)
            if number == moment // 2 and not moment % 2:
                stop()
            real(start, target)
            if number == moment // 2 and moment % 2:
                stop()

        def stop() -> None:
            if end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt

        os.replace = replace
        try:
            pack(source, out)
        except KeyboardInterrupt:
            os._exit(3)

    for moment in moves:
        (out / damaged).write_bytes(tar)
        in_fork(lambda moment=moment: repair(moment), None)
        assert readable(out, damaged) == PAIRS - 2
        if not (out / ".packing").exists() and contents(out) == whole:  # it came to its end
            break
    assert moment > 8, "so many moments there are at least"
    pack(source, out)
    assert contents(out) == whole


def test_a_folder_that_becomes_another_one_is_unfinished_meanwhile(pairs: Path, tmp_path: Path) -> None:
    """Where a mended image makes other bytes of a tar, the old manifest must not stand beside it."""
    good = (pairs / "11-after.png").read_bytes()
    (pairs / "11-after.png").write_bytes(good[:40])
    assert pack(of(pairs), tmp_path / "out")["dropped"]
    (pairs / "11-after.png").write_bytes(good)
    seen = []
    real = os.replace

    def replace(start: Any, target: Any) -> None:
        real(start, target)
        if Path(target).parent == tmp_path / "out":
            seen.append((Path(target).name, (tmp_path / "out" / "manifest.json").exists()))

    (tmp_path / "out" / "pairs-test-000000.tar").unlink()
    os.replace = replace
    try:
        mended = pack(of(pairs), tmp_path / "out")
    finally:
        os.replace = real
    assert ("pairs-test-000000.tar", False) in seen and seen[-1] == ("manifest.json", True)
    assert mended["dropped"] == {} and not (tmp_path / "out" / "dropped.tsv").exists()
    pack(of(pairs), tmp_path / "anew")
    assert contents(tmp_path / "out") == contents(tmp_path / "anew")
