"""Captions of anybody: the forms of files that are read, how names find pairs, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.scoring.caption_files import read_captions
from cluster.scoring.matching import with_captions
from shards.errors import DataError

ROWS = [("000003-semantic", "the cube, which is red, moved"), ("000003-nonsemantic", "")]
FORMS = {
    "list.json": json.dumps([{"image_id": name, "caption": said} for name, said in ROWS], indent=1),
    "annotations.json": json.dumps({"info": {}, "annotations": [{"image_id": n, "caption": s} for n, s in ROWS]}),
    "object.json": json.dumps(dict(ROWS)),
    "lists.json": json.dumps({name: [said] for name, said in ROWS}),
    "lines.jsonl": "".join(json.dumps({"key": n, "id": "x", "prediction": s}) + "\n\n" for n, s in ROWS),
    "lines.json": "\ufeff" + "\n".join(json.dumps({"id": n, "sentence": s}) for n, s in ROWS),
    "table.csv": "\ufeffid,score,caption\r\n" + "".join(f'{name},1,"{said}"\r\n' for name, said in ROWS),
    "sheet.csv": "Image_ID; Caption\n" + "".join(f"{name};{said}\n" for name, said in ROWS),  # of a spreadsheet
    "table.tsv": "filename\tcaption\n" + "".join(f"{name}\t{said}\n" for name, said in ROWS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_captions(form: str, tmp_path: Path) -> None:
    (tmp_path / form).write_text(FORMS[form], encoding="utf-8")
    assert [row[:2] for row in read_captions(tmp_path / form)] == ROWS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "not json", "not JSON; a table must end in .csv or .tsv"),
        ("a.json", "", "not JSON"),
        ("a.json", "\n", "it is empty"),
        ("a.csv", "", "has no captions"),
        ("a.csv", "id,caption\n1,the cube, which is red, moved\n", "line 2: more fields than columns: put quotes"),
        ("a.json", "[]", "has no captions"),
        ("a.json", "3", "neither a list of captions nor an object"),
        ("a.json", '["a"]', "entry 0 is not an object with a name"),
        ("a.json", '[{"caption": "a"}]', "entry 0 does not name its pair: one of key, image_id"),
        ("a.json", '[{"id": 3, "said": "a"}]', "entry 0 has no caption: one of caption"),
        ("a.json", '[{"id": 3.5, "caption": "a"}]', "'id' is neither text nor a whole number"),
        ("a.json", '{"a": ["x", "y"]}', "entry 'a': its caption is not one sentence"),
        ("a.jsonl", '{"id": 1, "caption": "a"}\n{"id": 2, "cap', "line 2: not JSON"),
        ("a.csv", "id,text\n1\n", "line 2 has no caption"),
        ("a.csv", b"id,text\n1,\xff\n", "not UTF-8"),
    ],
)
def test_other_files_are_refused_with_the_place(name: str, text: str | bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=f"{name}.*{said}" if said.isascii() else said):
        read_captions(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read .No such file"):
        read_captions(tmp_path / "nowhere.json")


def clevr(*numbers: int) -> list[dict]:
    return [
        {"key": f"{number:06d}-{view}", "id": f"CLEVR_{view}_{number:06d}.png", "references": ["a"]}
        for number in numbers
        for view in ("semantic", "nonsemantic")
    ]


def other(*names: str) -> list[dict]:
    return [{"key": f"test-{i}", "id": name, "references": ["a"]} for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("pairs", "source", "names"),
    [
        (clevr(3), "clevr_change", ["000003-semantic", "000003-nonsemantic"]),
        (clevr(3), "clevr_change", ["CLEVR_semantic_000003.png", "CLEVR_nonsemantic_000003"]),
        (clevr(3), "clevr_change", ["000003.png", "000003.png_n"]),  # as sc_results.json, nsc_results.json
        (clevr(3), "clevr_change", ["images/CLEVR_default_000003.png", "CLEVR_default_000003.png_n"]),
        (clevr(3), "clevr_change", ["3", "3_n"]),
        (other("256", "257"), "spot_the_diff", ["256.png", "images/257.png"]),
        (other("test_1.png", "test_2.png"), "levir_cc", ["test_1", "A/test_2.png"]),
        (other("a.b.jpg", "a.c.jpg"), "pairs", ["a.b", "a.c"]),  # dots in stems
        (other("test-1", "x"), "pairs", ["x", "test-0"]),  # a key goes before another pair's name
    ],
)
def test_names_find_their_pairs(pairs: list[dict], source: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"id": name, "caption": name} for name in names]))
    found = with_captions(pairs, [tmp_path / "a.json"], source, "test")
    wanted = names if names[0] != "x" else ["test-0", "x"]
    assert [pair["caption"] for pair in found] == wanted


def test_missing_unknown_and_repeated_names_are_said_in_one_line(tmp_path: Path) -> None:
    for name, rows in {
        "a.json": [("000003.png", "a"), ("000004.png", "b"), ("nowhere", "c"), ("000003.png", "d")],
        "b.json": [("000003.png", "a")],  # the same sentence again: no fault
    }.items():
        (tmp_path / name).write_text(json.dumps([{"image_id": id, "caption": said} for id, said in rows]))
    with pytest.raises(DataError) as refused:
        with_captions(clevr(3, 4), [tmp_path / "a.json", tmp_path / "b.json"], "clevr_change", "test")
    assert str(refused.value).removeprefix(str(tmp_path)) == (
        f"/a.json, {tmp_path}/b.json: 2 of 4 pairs of the test split have no caption (000003-nonsemantic, "
        "000004-nonsemantic); 1 captions are of no such pair (nowhere); 1 captions are of a pair that has another one "
        "already (000003.png): give each pair one caption; a pair is called, for example, 000003-semantic or "
        "CLEVR_semantic_000003.png; of another method? Then its file goes behind --against"
    )
    pairs = [*other("left/a.png", "right/a.png"), *other("b")]
    (tmp_path / "c.json").write_text('{"a": "said"}')
    with pytest.raises(DataError, match="several pairs are called 'a': name pairs by their keys"):
        with_captions(pairs, [tmp_path / "c.json"], "pairs", "test")
    (tmp_path / "d.json").write_text('{"b": "said"}')
    unread = [{"key": "test-9", "id": "empty", "references": []}, *other("b")]
    assert [pair["id"] for pair in with_captions(unread, [tmp_path / "d.json"], "pairs", "test")] == ["b"]
