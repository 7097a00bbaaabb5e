"""Pairs whose captions and mark contradict one another: counted, listed with ids, and packed all the same."""

from __future__ import annotations

import json

from shards.checks.verification import verify
from shards.format import manifest
from shards.format.record import Record
from shards.pack import main, pack
from shards.packing.contradictions import MARKED_CHANGED, MARKED_UNCHANGED, MIXED, find_contradictions
from shards.sources import make_source
from shards.wording.claims import NONE


def levir(root, write_photo, entries: list[tuple[int | None, str]]) -> None:
    images = []
    for number, (flag, sentence) in enumerate(entries):
        for side in "AB":
            write_photo(root / "images" / "train" / side / f"{number}.png")
        flags = {} if flag is None else {"changeflag": flag}
        images.append({"filename": f"{number}.png", "filepath": "train", "split": "train",
                       "sentences": [{"raw": sentence}]} | flags)  # fmt: skip
    (root / "LevirCCcaptions.json").write_text(json.dumps({"images": images}))


ENTRIES = [
    *[(0, "there is no difference")] * 4, *[(1, "a house has been built")] * 3,
    (0, "a house has been built"), (1, "there is no change"),
]  # fmt: skip


def test_levir_cc_marks_against_sentences(tmp_path, write_photo, capsys):
    levir(tmp_path / "root", write_photo, ENTRIES)
    out = str(tmp_path / "out")
    assert main(["levir_cc", "--root", str(tmp_path / "root"), "--out", out, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("pairs that contradict themselves"))
    assert f"1 {MARKED_UNCHANGED} (7.png)" in line and f"1 {MARKED_CHANGED} (8.png)" in line
    assert f"the list of them: {out}/contradictions.tsv" in printed
    contents = manifest.read(tmp_path / "out")
    assert contents["splits"]["train"]["pair"] == len(ENTRIES), "nothing is dropped"
    assert contents["contradictions"] == {
        MARKED_UNCHANGED: {"pairs": 1, "first": ["7.png"]}, MARKED_CHANGED: {"pairs": 1, "first": ["8.png"]}
    }  # fmt: skip
    assert (tmp_path / "out" / "contradictions.tsv").read_text().splitlines() == [
        f"train\t7.png\t{MARKED_UNCHANGED}\ta house has been built",
        f"train\t8.png\t{MARKED_CHANGED}\tthere is no change",
    ]
    assert contents["contradictions_file"]["lines"] == 2 and verify(tmp_path / "out") == []


def test_the_list_is_checked_and_mended_with_the_folder(tmp_path, write_photo):
    levir(tmp_path / "root", write_photo, ENTRIES)
    source = make_source("levir_cc", tmp_path / "root")
    pack(source, tmp_path / "out")
    path = tmp_path / "out" / "contradictions.tsv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert verify(tmp_path / "out") == [f"{path}: sha256 differs from the manifest"]
    pack(source, tmp_path / "out")
    assert path.read_bytes() == whole and verify(tmp_path / "out") == []


def test_spot_the_diff_says_no_difference_and_a_difference_of_one_pair(tmp_path, write_photo):
    for name in ("1", "2", "3"):
        for ending in ("", "_2"):
            write_photo(tmp_path / "root" / "images" / f"{name}{ending}.png")
    entries = [
        {"img_id": "1", "sentences": ["no difference"]},
        {"img_id": "1", "sentences": ["the man is gone"]},
        {"img_id": "2", "sentences": ["the man is gone", "a car has left"]},
        {"img_id": "3", "sentences": ["no difference"]},
    ]
    (tmp_path / "root" / "train.json").write_text(json.dumps(entries))
    contents = pack(make_source("spot_the_diff", tmp_path / "root"), tmp_path / "out")
    assert contents["contradictions"] == {MIXED: {"pairs": 1, "first": ["1"]}}
    line = (tmp_path / "out" / "contradictions.tsv").read_text()
    assert line == f"train\t1\t{MIXED}\tno difference | the man is gone\n"


def test_a_folder_without_any_has_no_list(tmp_path, write_photo):
    levir(tmp_path / "root", write_photo, ENTRIES[:7])
    contents = pack(make_source("levir_cc", tmp_path / "root"), tmp_path / "out")
    assert contents["contradictions"] == {} and "contradictions_file" not in contents
    assert not (tmp_path / "out" / "contradictions.tsv").exists()


def test_learnt_sentences_are_no_changes():
    record = Record("pair", "val", "k", {}, "id", ("没有变化",), False)
    assert [found.reason for found in find_contradictions([record], NONE)] == [MARKED_UNCHANGED]
    assert find_contradictions([record], frozenset({"没有变化"})) == []
    photo = Record("photo", "val", "k", {}, "id", ("no change", "a cat"))
    assert find_contradictions([photo], NONE) == []
