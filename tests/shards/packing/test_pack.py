"""Packing: the same bytes for any number of workers, after any interruption, and never into somebody else's files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import webdataset as wds
from testing.killing import ROOT, contents, in_fork, kill, kill_often, start_packing, wait_for
from testing.tiny_source import TinySource

from shards import pack as packing
from shards.checks.verification import verify
from shards.errors import DataError
from shards.pack import pack
from shards.reading.reader import Folder


def alive_in_session(session: int) -> list[str]:
    """Processes of a session that have not ended (zombies have)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.slow
def test_one_and_two_workers_write_the_same_bytes(packed, tmp_path):
    pack(TinySource(), tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(packed)


def test_plain_webdataset_reads_the_tars(packed):
    path = packed / "pairs-train-000000.tar"
    samples = list(wds.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"train-{i:03d}-{e}" for i in range(4) for e in "cn"]
    assert samples[0]["before.jpg"].shape == (16, 24, 3)
    assert samples[1]["after.png"].shape == (16, 24, 3)  # named by its content, not as the record says
    assert samples[0]["json"]["captions"] == ["the large red cube turned blue", "the red cube became blue"]


def test_the_manifest_tells_what_is_there(packed):
    manifest = Folder.open(packed).manifest
    assert manifest["splits"]["train"] == {"pair": 20, "photo": 10, "class": 10}
    assert manifest["splits"]["test"] == {"pair": 4, "photo": 2, "class": 0}
    assert manifest["classes"] == ["red", "blue", "green", "gray"]
    assert manifest["text"]["captions"] == 50 and manifest["text"]["longest_words"] == 6
    assert manifest["dropped"] == {} and verify(packed) == []


def test_samples_have_the_fields_of_their_kind(packed):
    folder = Folder.open(packed)
    pair = folder.stream("pair", "train").metadata(0)
    assert pair.keys() == {"kind", "source", "id", "captions", "negatives", "changed", "change_type", "truth"}
    assert pair["changed"] is True and pair["change_type"] == "color"
    assert folder.stream("photo", "val").metadata(1)["captions"] == ["a photo of a blue cube"]
    assert folder.stream("class", "train").metadata(2) == {
        "kind": "class",
        "source": "tiny",
        "id": "train-002/green",
        "class_id": 2,
        "class_name": "green",
    }


@pytest.mark.slow
def test_blocks_are_packed_the_same_by_one_and_two_workers(tmp_path, capsys):
    command = ["blocks", "--scenes", "3,1,1", "--size", "64x48", "--class-photos", "0", "--seed", "5"]
    for workers in ("1", "2"):
        assert packing.main([*command, "--out", str(tmp_path / workers), "--workers", workers]) == 0
    assert "3 photo" in capsys.readouterr().out
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert verify(tmp_path / "1") == []
    folder = Folder.open(tmp_path / "1")
    assert folder.manifest["options"]["scenes"] == [3, 1, 1] and len(folder.manifest["classes"]) == 96
    assert folder.stream("pair", "train").images(0)["after"].shape == (48, 64, 3)


@pytest.mark.slow
def test_a_killed_packing_goes_on_and_ends_with_the_same_bytes(packed, tmp_path):
    out = tmp_path / "killed"
    process = start_packing(tmp_path, out, seconds=0.2)
    try:
        wait_for(lambda: list(out.glob(".packing/pairs-*.tar.json")), process)
    finally:
        kill(process)
    until = time.monotonic() + 60
    while alive_in_session(process.pid):  # the workers see that their parent is gone
        assert time.monotonic() < until, "workers outlive a killed packing"
        time.sleep(0.05)
    done = {entry.name.removesuffix(".json") for entry in out.glob(".packing/*.tar.json")}
    assert done and not (out / "manifest.json").exists()
    with pytest.raises(DataError, match="manifest.json is missing"):
        Folder.open(out)
    with pytest.raises(DataError, match="negatives = 6, now asked for with 3"):
        pack(TinySource(), out, negatives=3)
    written = {name: (out / name).stat().st_mtime_ns for name in done}
    pack(TinySource(), out)
    assert contents(out) == contents(packed)
    assert written == {name: (out / name).stat().st_mtime_ns for name in done}, "finished shards were packed again"


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, seed):
    source = TinySource(broken=("train-001/blue",), seconds=0.002)
    start = time.monotonic()
    pack(source, tmp_path / "undisturbed")
    seconds = time.monotonic() - start
    places = (tmp_path / str(number) for number in range(20))
    out = kill_often(lambda place: pack(source, place), places, seconds, times=5, seed=seed)
    pack(source, out)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", ["manifest.json", "identity.json", "pairs-train-000001.tar", "dropped.tsv"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_around_each_file_it_ends_with_the_same_bytes(tmp_path, name, after):
    """The moments that chance seldom meets: just before and just after a file gets its name."""
    source = TinySource(broken=("train-001/blue",))

    def packing():
        real = os.replace

        def replace(start, end):
            if after or Path(end).name != name:
                real(start, end)
            if Path(end).name == name:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        pack(source, tmp_path / "killed")

    assert in_fork(packing, None)
    pack(source, tmp_path / "killed")
    pack(source, tmp_path / "undisturbed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_packing_again_mends_a_damaged_folder(packed, tmp_path):
    out = tmp_path / "damaged"
    pack(TinySource(), out)
    kept = (out / "pairs-val-000000.tar").stat().st_mtime_ns
    tar = out / "pairs-train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-700])
    (out / "photos-test-000000.index.tsv").unlink()
    pack(TinySource(), out)
    assert contents(out) == contents(packed)
    assert (out / "pairs-val-000000.tar").stat().st_mtime_ns == kept


def test_a_finished_folder_is_left_alone_and_other_options_are_refused(packed):
    times = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    pack(TinySource(), packed)
    assert times == {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    with pytest.raises(DataError, match="scenes = 10, now asked for with 11"):
        pack(TinySource(11), packed)


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="other files"):
        pack(TinySource(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


class Nothing(TinySource):
    """A source of which nothing can be packed."""

    def records(self, workers):
        self.lost = ["train-000/c: no photo"]
        self.dropped = {"no photo": 1}
        return []


def test_where_nothing_can_be_packed_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match=r"no samples to pack \(1 no photo; the first, train-000/c: no photo\)"):
        pack(Nothing(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()  # a folder that was there stays
    with pytest.raises(DataError, match="no samples"):
        pack(Nothing(), tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    pack(TinySource(), tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").unlink()
    before = contents(tmp_path / "mine")
    with pytest.raises(DataError, match="no samples"):  # nor are tars deleted that are there for any reason
        pack(Nothing(), tmp_path / "mine")
    assert contents(tmp_path / "mine") == before


def test_where_every_image_is_damaged_nothing_is_left(tmp_path):
    names = {image for record in TinySource().records(1) for image in record.images.values()}
    with pytest.raises(DataError, match=r"none of \d+ samples can be packed; the first, .*no such file"):
        pack(TinySource(broken=tuple(names)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_in_one_line_and_the_packing_goes_on_later(packed, tmp_path):
    class Full(TinySource):
        def image(self, image_id):
            if image_id.startswith("val"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().image(image_id)

    with pytest.raises(DataError, match=f"{tmp_path / 'out'}: No space left on device"):
        pack(Full(), tmp_path / "out")
    pack(TinySource(), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(packed)


def test_missing_images_are_counted_and_their_samples_left_out(tmp_path, capsys):
    manifest = pack(TinySource(broken=("train-001/blue",)), tmp_path / "out")
    assert sum(manifest["dropped"].values()) == 4  # two pairs, a photo and a class photo show it
    assert manifest["splits"]["train"] == {"pair": 18, "photo": 9, "class": 9}
    assert "left out: train-001/c (train-001/blue: no such file)" in capsys.readouterr().err
    assert verify(tmp_path / "out") == []


class Wanting(TinySource):
    """A source that leaves something out itself."""

    def records(self, workers):
        self.dropped, self.lost = {"no captions": 1}, ["val-009/c: no captions (line\t9)"]
        return super().records(workers)


@pytest.mark.slow
def test_what_is_dropped_is_listed_for_any_number_of_workers(tmp_path, capsys):
    source = Wanting(broken=("train-001/blue", "train-009/green"))
    manifest = pack(source, tmp_path / "one")
    lines = (tmp_path / "one" / "dropped.tsv").read_text().splitlines()
    reason = "an image is missing or damaged"
    assert manifest["dropped"] == {"no captions": 1, reason: len(lines) - 1}
    assert lines[0] == "val-009/c\tno captions (line 9)"
    assert f"train-001/c\t{reason} (train-001/blue: no such file)" in lines
    data = (tmp_path / "one" / "dropped.tsv").read_bytes()
    told = {"file": "dropped.tsv", "lines": len(lines), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["dropped_file"] == told
    pack(source, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.parametrize("damaged", ["dropped.tsv", "pairs-train-000000.tar", "pairs-val-000000.tar", "manifest.json"])
def test_the_list_is_mended_with_the_folder(tmp_path, damaged):
    source = TinySource(broken=("train-001/blue",))
    pack(source, tmp_path)
    before = contents(tmp_path)
    data = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(data.replace(b"blue", b"blur", 1) if damaged == "manifest.json" else data[:-1])
    pack(source, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("resize", "size"), [((30, 20), (20, 30)), (8, (8, 12)), (64, (16, 24)), ((24, 16), (16, 24))])
def test_images_are_resized(packed, tmp_path, resize, size):
    pack(TinySource(), tmp_path / "out", resize=resize)
    stream = Folder.open(tmp_path / "out").stream("pair", "train")
    images = stream.images(1)  # a JPEG and a PNG
    assert images["before"].shape == images["after"].shape == (*size, 3)
    index = (tmp_path / "out" / "pairs-train-000000.index.tsv").read_text()
    assert "train-000-n.after.png" in index and "train-000-n.before.jpg" in index
    original = Folder.open(packed).stream("pair", "train").images(1)
    # The square in the middle keeps its colour and place.
    middle = images["after"][size[0] // 2, size[1] // 3].astype(int) - original["after"][8, 8]
    assert abs(middle).max() < 12
    if size == (16, 24):  # as they were: nothing is made larger, nothing is written anew
        tar = "pairs-train-000000.tar"
        assert (tmp_path / "out" / tar).read_bytes() == (packed / tar).read_bytes()


@pytest.mark.parametrize("text", ["0", "x", "20x", "20x30x4", "-3", "9000", "\u0663"])
def test_a_size_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="width and height"):
        packing.main(["blocks", "--out", str(tmp_path / "out"), f"--resize={text}"])


def test_limit_keeps_the_first_of_each_kind_and_split(tmp_path):
    manifest = pack(TinySource(), tmp_path / "out", limit=3)
    assert manifest["splits"] == {
        "train": {"pair": 3, "photo": 3, "class": 3},
        "val": {"pair": 3, "photo": 2, "class": 0},
        "test": {"pair": 3, "photo": 2, "class": 0},
    }


def test_two_packings_into_one_folder_are_refused(tmp_path):
    source = TinySource()

    class Meanwhile(TinySource):
        def records(self, workers):
            with pytest.raises(DataError, match="another process"):
                pack(source, tmp_path / "out")
            return super().records(workers)

    pack(Meanwhile(), tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clevr_change", "--out", "x"], "needs --root"),
        (["clevr_change", "--root", "/nowhere/at/all", "--out", "x"], "/nowhere/at/all: no such folder"),
        (["clevr_change", "--root", ".", "--out", "x", "--size", "20x20"], "--size: only blocks"),
        (["blocks", "--root", ".", "--out", "x"], "leave --root out"),
        (["blocks", "--out", "x", "--sceens", "1,1,1"], "did you mean --scenes"),
        (["blocks", "--out", "x", "--size", "20"], "--size"),
        (["blocks", "--out", "x", "--workers", "0", "--scenes", "1,1,1"], "--workers is 0"),
        (["blokcs", "--out", "x"], "blocks"),
        (["blocks", "--out", "x", "--scenes", "1,1,1", "--address", "nowhere"], "--address nowhere: no connection"),
        (["blocks", "--out", "x", "--scenes", "1,1,1", "--address", "127.0.0.1:1"], "nothing answers there"),
        (["blocks", "--out", "ssh3://x", "--scenes", "1,1,1"], "no such protocol"),
        (["blocks", "--out", "s3://", "--scenes", "1,1,1"], "is no URL|names no bucket"),
    ],
)
def test_wrong_options_end_in_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        packing.main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_one_line_for_a_mistake_and_usage_for_nothing():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "shards.pack", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
        )

    mistaken = run("clevr_change", "--root", "/nowhere", "--out", "/nowhere/out")
    assert mistaken.returncode == 2 and len(mistaken.stderr.splitlines()) == 1 and "/nowhere" in mistaken.stderr
    nothing = run()
    assert nothing.returncode == 2 and nothing.stderr.startswith("usage: shards.pack")


def test_json_is_the_same_for_equal_inputs(packed):
    for line in (packed / "manifest.json").read_text().splitlines():
        assert str(packed) not in line  # nothing in it depends on where the folder lies
    assert json.loads((packed / "manifest.json").read_text())["options"]["negatives_seed"] == 0
