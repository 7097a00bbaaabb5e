"""The command on folders and tables: bad rows are named, the rest is captioned."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from testing.machines.terminal import on_a_terminal
from testing.models.untrained import untrained_run

from idc import caption
from idc.captioning.pair_lists import COLUMNS, PairsError, list_pairs, table_rows
from shards.errors import DataError
from shards.sources.layouts.tables import read_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"), limit=1e-3)


@pytest.fixture
def pairs(tmp_path):
    """Folders before/ and after/ with a, b & c; b's second is no image, and d has no second."""
    for side in ("before", "after"):
        (tmp_path / side).mkdir()
        for shade, name in enumerate("abcd"):
            Image.fromarray(np.full((24, 32, 3), 40 * shade, np.uint8)).save(tmp_path / side / f"{name}.png")
    (tmp_path / "after" / "b.png").write_text("no image")
    (tmp_path / "after" / "d.png").unlink()
    (tmp_path / "pairs.csv").write_text(
        "Before;After\nbefore/a.png;after/a.png\nbefore/b.png;after/b.png\nbefore/c.png;\nbefore/c.png;after/c.png\n"
    )
    return tmp_path


def test_a_folder_as_lines_of_json_a_table_and_a_page(run, pairs, capsys):
    code = caption.main(
        [str(pairs), "--checkpoint", str(run), "--json", "--csv", str(pairs / "out.csv"), "--html",
         str(pairs / "out.html"), "--batch-size", "3"]
    )  # fmt: skip
    written = capsys.readouterr()
    assert code == 1, "some have no caption"
    assert re.search(r"^b: .*after/b.png cannot be read as an image", written.err, re.M)
    assert re.search(r"^d: .*after has no image of this name", written.err, re.M) and written.err.count("\n") == 2
    lines = [json.loads(line) for line in written.out.splitlines()]
    assert [line["before"][-5:] for line in lines] == ["a.png", "b.png", "c.png", "d.png"]
    assert ["error" in line for line in lines] == [False, True, False, True]
    assert lines[0]["familiar"] is False and lines[0]["unfamiliarity"] > 1, "far from the calibration's zeros"
    with open(pairs / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caption"] for row in rows] == [line.get("caption", "") for line in lines]
    assert "cannot be read" in rows[1]["error"] and not rows[0]["error"]
    page = (pairs / "out.html").read_text()
    assert page.count("<article>") == 4 and page.count("data:image/jpeg;base64,") == 2
    assert page.count("a guess") == 2 and "viewport" in page and page.endswith("</html>\n")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is loaded from elsewhere"


def test_a_table_and_two_folders_say_the_same(run, pairs, capsys):
    assert caption.main([str(pairs / "pairs.csv"), "--checkpoint", str(run)]) == 1
    of_table = capsys.readouterr()
    assert "pairs.csv line 3: " in of_table.err and "pairs.csv line 4: no after" in of_table.err
    assert caption.main([str(pairs / "before"), str(pairs / "after"), "--checkpoint", str(run)]) == 1
    assert capsys.readouterr().out == of_table.out and of_table.out.count("\n") == 2


def test_the_table_that_was_packed_is_one_of_pairs_too(pairs):
    for name in ("Thumbs.db", "desktop.ini"):
        (pairs / "before" / name).write_bytes(b"of Windows")
    assert [pair.place for pair in list_pairs(str(pairs), None)] == list("abcd"), "what no person put there"
    (pairs / "captions.csv").write_text("name;captions;changed\na.png;nothing has changed;no\nc.png;it is darker;yes\n")
    folders = list_pairs(str(pairs / "before"), str(pairs / "after"))
    found = list_pairs(str(pairs / "captions.csv"), None)
    assert [(pair.before, pair.after) for pair in found] == [(folders[i].before, folders[i].after) for i in (0, 2)]


def test_in_a_terminal_one_line_counts_below_the_others(run, pairs, capsys, monkeypatch):
    words = [str(pairs), "--checkpoint", str(run), "--batch-size", "3"]
    shown = on_a_terminal(monkeypatch, lambda: caption.main(words))
    *above, last = (line.rpartition("\r")[2] for line in shown.rstrip().split("\n"))
    assert [line[:3] for line in above if line.strip()] == ["b: ", "d: "] and "4/4" in last, "no line is cut"
    assert capsys.readouterr().out.count("\n") == 2


def test_ctrl_c_ends_with_a_line_and_leaves_no_half_file(run, pairs, capsys, monkeypatch):
    from idc.captioner import Captioner

    def interrupted(*_) -> None:
        assert list(pairs.glob("out.csv*")), "it was begun"
        raise KeyboardInterrupt

    monkeypatch.setattr(Captioner, "captions", interrupted)
    assert caption.main([str(pairs), "--checkpoint", str(run), "--csv", str(pairs / "out.csv")]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted: ") and not list(pairs.glob("out.csv*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["before/b.png", "after/b.png"], "b.png cannot be read"),
        (["before/a.png"], "give two images, two folders"),
        (["before", "after/a.png"], "two images or two folders"),
        (["before", "empty"], "no two images of the same name"),
        (["pairs.csv", "--heat-map", "out.png"], "--heat-map is of one pair"),
        (["pairs.csv", "--batch-size", "0"], "--batch-size is 0"),
        (["bad.csv", "--csv", "out.csv"], "none of the 2 pairs has a caption"),
    ],
)
def test_where_nothing_can_be_done_nothing_is_written(run, pairs, capsys, monkeypatch, words, message):
    monkeypatch.chdir(pairs)
    (pairs / "empty").mkdir()
    (pairs / "bad.csv").write_text("before,after\nbefore/b.png,after/b.png\nx.png,y.png\n")
    assert caption.main([*words, "--checkpoint", str(run)]) == 2
    written = capsys.readouterr()
    assert message in written.err.splitlines()[-1] and written.out == ""
    assert not list(pairs.glob("out*"))


TABLES = {
    "a.csv": 'before,after,n\nx,"y, z",1\n\nx,y,1,2\n',
    "b.csv": "\ufeffBefore;After\nx;y\n",
    "c.tsv": "before\tafter\nx\ty\n",
    "d.jsonl": '{"Before": "x", "after": "y"}\nno json\n[1]\n',
    "e.json": '[{"before": "x", "after": "y"}, 3]',
    "f.csv": 'before,after\nx,"y\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_as_packing_reads_them(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    text = TABLES[name].removeprefix("\ufeff")
    try:
        packed = [(row.place, row.fields, row.fault is None) for row in read_rows(tmp_path, name, COLUMNS)]
    except DataError:
        with pytest.raises(PairsError, match="cannot be read"):
            list(table_rows(tmp_path / name, text))
        return
    assert [(place, fields, fault is None) for place, fields, fault in table_rows(tmp_path / name, text)] == packed
    assert [pair.before for pair in list_pairs(str(tmp_path / name), None)][0] == str(tmp_path / "x")
